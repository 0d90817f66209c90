// Package sftp serves version 3 of the SSH file transfer protocol
// (draft-ietf-secsh-filexfer-02) with the extensions that OpenSSH's clients use
// (OpenSSH PROTOCOL section 4): posix-rename, statvfs, fstatvfs, hardlink,
// fsync, lsetstat, limits, expand-path, copy-data, home-directory and
// users-groups-by-id.
//
// Requests are answered in the order they come, from one buffer in and one
// buffer out: memory is flat whatever the size of a file or of a folder.
// Paths are those of the whole file system that the process sees, with the
// process's own rights; relative ones start at the home.
package sftp
