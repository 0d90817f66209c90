package backendai

import (
	"errors"
	"fmt"
	"net/http"
)

// Code names a kind of failure for machines. It is the last element of the
// problem+json "type" URI, https://api.backend.ai/probs/<code>.
type Code string

// The codes of the public protocol that this platform uses.
const (
	CodeInvalidParams   Code = "invalid-api-params"
	CodeBadRequest      Code = "generic-bad-request"
	CodeInvalidAuth     Code = "invalid-auth-params"
	CodeAuthFailed      Code = "auth-failed"
	CodeForbidden       Code = "generic-forbidden"
	CodeNotFound        Code = "object-not-found"
	CodeURLNotFound     Code = "url-not-found"
	CodeTooManySessions Code = "too-many-sessions-matched"
	CodeTooManyVFolders Code = "too-many-vfolders"
	CodeSessionExists   Code = "session-already-exists"
	CodeVFolderExists   Code = "vfolder-already-exists"
	CodeVFolderFailed   Code = "vfolder-operation-failed"
	CodeMethod          Code = "method-not-allowed"
	CodeQuota           Code = "quota-exceeded"
	CodeRateLimit       Code = "rate-limit-exceeded"
	CodeGraphQL         Code = "graphql-error"
	CodeInternal        Code = "internal-server-error"
	CodeCreationFailed  Code = "kernel-creation-failed"
	CodeNotImplemented  Code = "not-implemented"
	CodeUnavailable     Code = "service-unavailable"
	// CodeUnreachable never travels: the client makes it when no server answers.
	CodeUnreachable Code = "unreachable"
)

var statusOf = map[Code]int{
	CodeInvalidParams: http.StatusBadRequest, CodeBadRequest: http.StatusBadRequest,
	CodeInvalidAuth: http.StatusBadRequest, CodeAuthFailed: http.StatusUnauthorized,
	CodeForbidden: http.StatusForbidden, CodeNotFound: http.StatusNotFound,
	CodeURLNotFound: http.StatusNotFound, CodeTooManySessions: http.StatusNotFound,
	CodeTooManyVFolders: http.StatusNotFound, CodeSessionExists: http.StatusBadRequest,
	CodeVFolderExists: http.StatusBadRequest, CodeVFolderFailed: http.StatusBadRequest,
	CodeMethod: http.StatusMethodNotAllowed, CodeQuota: http.StatusPreconditionFailed,
	CodeRateLimit: http.StatusTooManyRequests, CodeGraphQL: http.StatusBadRequest,
	CodeInternal: http.StatusInternalServerError, CodeCreationFailed: http.StatusInternalServerError,
	CodeNotImplemented: http.StatusNotImplemented, CodeUnavailable: http.StatusServiceUnavailable,
}

// HTTPStatus is the status that goes with the code; 500 for one it does not know.
func (c Code) HTTPStatus() int {
	if s, ok := statusOf[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Error is the only error that crosses a process border. Title is one line for
// people that names the thing at fault; Hint says what to do and may be empty.
// Data is the structured detail of the protocol (API section 3). Err is the
// cause: it goes to the log and never over the wire.
type Error struct {
	Code  Code
	Title string
	Hint  string
	Data  any
	Err   error
}

// Errorf makes an Error of the code with a formatted title; a %w verb sets Err.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Title: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint returns a copy of e with the hint set.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithData returns a copy of e with the structured detail set.
func (e *Error) WithData(data any) *Error {
	c := *e
	c.Data = data
	return &c
}

// Error implements error; it is the title alone.
func (e *Error) Error() string { return e.Title }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf is the code of the first Error in err's chain, CodeInternal if there
// is none, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// NotFound is the error for an object that does not exist or that the caller
// may not know of: both look the same from outside.
func NotFound(object, name string) *Error {
	return Errorf(CodeNotFound, "no such %s: %q", object, name)
}
