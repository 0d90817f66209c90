//go:build !linux

package vfolder

import "os"

func enforcesProjects(*os.File) bool { return false }

func projectFree(*os.File, uint32) (bool, error) { return false, notHere() }

func projectUse(*os.File, uint32) (uint64, error) { return 0, notHere() }

func limitProject(*os.File, uint32, uint64) error { return notHere() }

func projectOf(*os.File) (uint32, error) { return 0, notHere() }

func setProject(*os.File, uint32, bool) error { return notHere() }

func diskUse(string) (taken, block uint64, err error) { return 0, 0, notHere() }
