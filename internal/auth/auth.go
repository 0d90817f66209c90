// Package auth signs requests and verifies their signatures as the protocol
// says (API section 2.1). Both ends are here, so that they cannot disagree, and
// both are pure: they take the time and give the answer, and keep nothing.
//
// What is signed is the method, the request target byte for byte, the date, the
// host, the media type and the API version, never the body.
package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"backendai"
)

// MaxSkew is how far the date of a request may be from the server's clock.
const MaxSkew = 15 * time.Minute

// The headers of the protocol, and the names that they had before.
const (
	HeaderVersion = "X-BackendAI-Version"
	HeaderDomain  = "X-BackendAI-Domain"

	headerDate          = "X-BackendAI-Date"
	headerLegacyVersion = "X-Sorna-Version"
	headerLegacyDate    = "X-Sorna-Date"
)

// Stream is the media type that a request without a Content-Type is signed as:
// those that open streams send none.
const Stream = "application/octet-stream"

// isoDate is how Python's datetime.isoformat writes UTC; a fraction is left out when it is zero.
const isoDate = "2006-01-02T15:04:05.999999-07:00"

// Sign sets the headers that make req a signed request: Date,
// X-BackendAI-Version, Authorization, and Content-Type unless contentType is
// empty, as it is for streams. An empty accessKey leaves the request anonymous.
// The URL and the Host of req must be final.
func Sign(req *http.Request, accessKey, secret, version, contentType string, now time.Time) {
	date := now.UTC().Format(isoDate)
	req.Header.Set("Date", date)
	req.Header.Set(HeaderVersion, version)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	} else {
		req.Header.Del("Content-Type")
	}
	if accessKey == "" {
		req.Header.Del("Authorization")
		return
	}
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	p := parts{
		method: method(req), target: req.URL.RequestURI(), date: date, day: now.UTC().Format("20060102"), host: host,
		media: mediaType(contentType), version: "x-backendai-version:" + version, hash: sha256.New,
	}
	req.Header.Set("Authorization", "BackendAI signMethod=HMAC-SHA256, credential="+accessKey+":"+hex.EncodeToString(p.sign(secret)))
}

// Verify checks the signature of a request as a server received it and returns
// the access key that made it. The secret of a key comes from lookup, whose
// error is returned as it is. Other errors are *backendai.Error: CodeInvalidAuth for
// a request that is not well formed or whose date is too far from now,
// CodeAuthFailed for one that is anonymous or not signed by the key.
func Verify(req *http.Request, now time.Time, lookup func(accessKey string) (secret string, err error)) (accessKey string, err error) {
	c, err := readCredential(req.Header.Get("Authorization"))
	if err != nil {
		return "", err
	}
	date, at, err := readDate(req.Header)
	if err != nil {
		return "", err
	}
	if skew := at.Sub(now); skew > MaxSkew || skew < -MaxSkew {
		return "", backendai.Errorf(backendai.CodeInvalidAuth, "the clocks of the client and the server are %s apart", skew.Abs().Round(time.Second)).
			WithHint("the request says %s, the server's clock says %s; correct the one that is wrong",
				at.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	version, err := readVersion(req.Header)
	if err != nil {
		return "", err
	}
	secret, err := lookup(c.accessKey)
	if err != nil {
		return "", err
	}
	p := parts{
		method: method(req), target: req.RequestURI, date: date, day: at.Format("20060102"),
		media: mediaType(req.Header.Get("Content-Type")), version: version, hash: c.hash,
	}
	for _, host := range signedHosts(req.Host) {
		p.host = host
		if hmac.Equal(p.sign(secret), c.signature) {
			return c.accessKey, nil
		}
	}
	return "", backendai.Errorf(backendai.CodeAuthFailed, "the signature of access key %s is not valid", c.accessKey).
		WithHint("check the secret key; a proxy that changes the path or the Host header also breaks signatures")
}

// signedHosts are the forms of a received Host header that the client may have
// signed: HTTP libraries leave out a default port that was in the endpoint.
func signedHosts(host string) []string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return []string{host}
	}
	return []string{host, host + ":80", host + ":443"}
}

// parts is what a signature covers.
type parts struct {
	method, target, date, host, media string
	day                               string // of the date, in the date's own zone: 20060102
	version                           string // the whole line, name included
	hash                              func() hash.Hash
}

func (p parts) sign(secret string) []byte {
	text := strings.Join([]string{
		p.method, p.target, p.date, "host:" + p.host, "content-type:" + p.media, p.version, hex.EncodeToString(p.hash().Sum(nil)),
	}, "\n")
	key := p.mac([]byte(secret), p.day)
	key = p.mac(key, p.host)
	return p.mac(key, text)
}

func (p parts) mac(key []byte, text string) []byte {
	m := hmac.New(p.hash, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func method(req *http.Request) string {
	if req.Method == "" {
		return http.MethodGet
	}
	return strings.ToUpper(req.Method)
}

// mediaType is the form of a Content-Type that is signed: lower case, without parameters.
func mediaType(contentType string) string {
	if contentType == "" {
		return Stream
	}
	if media, _, err := mime.ParseMediaType(contentType); err == nil {
		return media
	}
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

type credential struct {
	accessKey string
	signature []byte
	hash      func() hash.Hash
}

// readCredential parses "BackendAI signMethod=HMAC-SHA256, credential=KEY:HEX".
func readCredential(header string) (credential, error) {
	if header == "" {
		return credential{}, backendai.Errorf(backendai.CodeAuthFailed, "this call needs a signed request").
			WithHint("set BACKEND_ACCESS_KEY and BACKEND_SECRET_KEY")
	}
	kind, rest, _ := strings.Cut(header, " ")
	if kind != "BackendAI" && kind != "Sorna" {
		return credential{}, malformed("the Authorization header is of type %q, not BackendAI", kind)
	}
	fields := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			return credential{}, malformed("the Authorization header has a field without a value")
		}
		fields[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	key, signature, ok := strings.Cut(fields["credential"], ":")
	if !ok || key == "" {
		return credential{}, malformed("the Authorization header has no credential of the form key:signature")
	}
	raw, err := hex.DecodeString(signature)
	if err != nil {
		return credential{}, malformed("the signature in the Authorization header is not hexadecimal")
	}
	c := credential{accessKey: key, signature: raw}
	switch strings.ToUpper(fields["signMethod"]) {
	case "HMAC-SHA256":
		c.hash = sha256.New
	case "HMAC-SHA384":
		c.hash = sha512.New384
	case "HMAC-SHA512":
		c.hash = sha512.New
	default:
		return credential{}, malformed("the signing method %q is not supported", fields["signMethod"])
	}
	return c, nil
}

// dateLayouts are the forms of a date that clients send; a fraction of a second
// is accepted in all of them. No zone means UTC.
var dateLayouts = []string{
	"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05", "20060102T150405Z", time.RFC1123, time.RFC1123Z, time.RFC850,
}

func readDate(h http.Header) (text string, at time.Time, err error) {
	for _, name := range []string{"Date", headerDate, headerLegacyDate} {
		if text = h.Get(name); text == "" {
			continue
		}
		for _, layout := range dateLayouts {
			if at, err = time.Parse(layout, text); err == nil {
				return text, at, nil
			}
		}
		return "", time.Time{}, malformed("the %s header %q is not a date", name, text)
	}
	return "", time.Time{}, malformed("the request has no Date header")
}

// readVersion gives the line of the signed text that names the API version.
func readVersion(h http.Header) (string, error) {
	if v := h.Get(HeaderVersion); v != "" {
		return "x-backendai-version:" + v, nil
	}
	if v := h.Get(headerLegacyVersion); v != "" {
		return "x-sorna-version:" + v, nil
	}
	return "", malformed("the request has no %s header", HeaderVersion)
}

func malformed(format string, args ...any) error {
	return backendai.Errorf(backendai.CodeInvalidAuth, format, args...)
}
