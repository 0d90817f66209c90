//go:build integration && projectquota && linux

package vfolder

// What the tests need to see and set the projects of folders.
var (
	FolderProject = folderProject
	ProjectFree   = projectFree
	Join          = join
)
