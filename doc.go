// Package backendai is the vocabulary of the platform: sessions, apps, images,
// users, keypairs, resource slots, mounts, events and errors, with their
// validation and their legal state changes.
//
// It does no I/O and imports nothing of this module, so that the server, the
// client and the tests speak of the same things in the same words. The names
// and codes are those of Backend.AI's public v1 protocol.
package backendai
