package vfolder

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"backendai"
)

// The operations that tokens are for.
const (
	opUpload   = "upload"
	opDownload = "download"
	opFill     = "upload-archive" // many files into a directory
)

// claims are what a token of the storage endpoints allows, and to whom. The
// names are those of API section 7.3.
type claims struct {
	Op      string `json:"op"`
	Volume  string `json:"volume"`
	Folder  string `json:"vfid"` // UUID without dashes
	Path    string `json:"relpath"`
	Expires int64  `json:"exp"` // seconds since 1970
	User    string `json:"sub"`
	Key     string `json:"access_key"` // by which the token was asked for, and with which it ends
	// Of uploads: which one, of how many bytes, and the how manieth time that it
	// was asked for; a later one ends the earlier.
	Session string `json:"session,omitempty"`
	Size    int64  `json:"size,omitempty"`
	Turn    uint64 `json:"turn,omitempty"`
	// Of downloads.
	Archive bool     `json:"archive,omitempty"`
	Files   []string `json:"files,omitempty"`
	Name    string   `json:"name,omitempty"` // of the archive
}

// tokenHeader is the first part of every token: no other algorithm is taken.
var tokenHeader = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))

// sign makes a token of claims.
func (s *Service) sign(c claims) (string, error) {
	c.Expires = s.now().Add(tokenTime).Unix()
	body, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	text := tokenHeader + "." + base64.RawURLEncoding.EncodeToString(body)
	return text + "." + base64.RawURLEncoding.EncodeToString(s.mac(text)), nil
}

func (s *Service) mac(text string) []byte {
	h := hmac.New(sha256.New, s.opts.Key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// verify reads a token for an operation.
func (s *Service) verify(token string, ops ...string) (claims, error) {
	refuse := func(why, hint string) (claims, error) {
		return claims{}, backendai.Errorf(backendai.CodeAuthFailed, "the token of this address %s", why).WithHint("%s", hint)
	}
	signed, mac, _ := cutLast(token, ".")
	header, body, _ := strings.Cut(signed, ".")
	given, err := base64.RawURLEncoding.Strict().DecodeString(mac)
	if err != nil || header != tokenHeader || !hmac.Equal(given, s.mac(signed)) {
		return refuse("is not valid", "ask the server for a new address of the file")
	}
	var c claims
	text, err := base64.RawURLEncoding.DecodeString(body)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return refuse("is not valid", "ask the server for a new address of the file")
	}
	if !s.now().Before(time.Unix(c.Expires, 0)) {
		return refuse("has expired", "ask the server for a new address of the file")
	}
	for _, op := range ops {
		if c.Op == op {
			return c, nil
		}
	}
	return refuse("is for something else", "it allows to "+strings.ReplaceAll(c.Op, "-", " "))
}

func cutLast(text, separator string) (before, after string, found bool) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(separator):], true
}

// holder is the folder of a token as its user sees it now: who has lost the
// folder since cannot use the token any more.
func (s *Service) holder(ctx context.Context, c claims, need backendai.Permission) (View, error) {
	gone := backendai.NotFound("folder", c.Folder).WithHint("it was deleted, or you may not use it any more")
	id, _ := backendai.FolderID(c.Folder)
	f, err := s.store.Folder(ctx, id)
	if backendai.CodeOf(err) == backendai.CodeNotFound {
		return View{}, gone
	}
	if err != nil {
		return View{}, err
	}
	u, err := s.store.User(ctx, c.User)
	if backendai.CodeOf(err) == backendai.CodeNotFound || err == nil && !u.Active {
		return View{}, gone
	}
	if err != nil {
		return View{}, err
	}
	k, err := s.store.Keypair(ctx, c.Key)
	if backendai.CodeOf(err) == backendai.CodeNotFound || err == nil && (!k.Active || k.UserID != u.ID) {
		return View{}, gone
	}
	if err != nil {
		return View{}, err
	}
	v, ok, err := s.view(ctx, backendai.Caller{User: *u}, f)
	if err != nil {
		return View{}, err
	}
	if !ok {
		return View{}, gone
	}
	return v, v.allow(need)
}
