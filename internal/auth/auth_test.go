package auth_test

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"backendai"
	"backendai/internal/auth"
)

const (
	accessKey = "AKIAIOSFODNN7EXAMPLE"
	secretKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" // the well-known example key, not a secret
	version   = "v6.20220315"
)

var now = time.Date(2022, 6, 23, 4, 5, 6, 123456000, time.UTC)

func lookup(key string) (string, error) {
	if key != accessKey {
		return "", backendai.Errorf(backendai.CodeAuthFailed, "no such key")
	}
	return secretKey, nil
}

// vectors are those of the protocol's reference, checked with the original's code.
var vectors = []struct{ method, target, contentType, signature string }{
	{"POST", "/session", "application/json", "92b72f9c6ce59168c145001028df8976bc263a4b315413b9104149ef3b8829c4"},
	{"GET", "/stream/session/mysession/tcpproxy?app=ttyd", "", "7e6ebcc0896916a8eb2a54745ee325566609dce2f3aed9a17c8933cd63072570"},
	{"GET", "/session/mysession/logs", "text/plain", "6cd554c8389853721ff7e56db6657304e2faddf2a8028bca9600c1046faafe59"},
	{"POST", "/session/mysession/upload", "multipart/form-data; boundary=X", "d938b23763d015c0ca5b47df96d1269c6ff05bf3ae8bf5222813a146af1d34ee"},
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		req, err := http.NewRequestWithContext(t.Context(), v.method, "http://127.0.0.1:8081"+v.target, nil)
		if err != nil {
			t.Fatal(err)
		}
		auth.Sign(req, accessKey, secretKey, version, v.contentType, now)
		want := "BackendAI signMethod=HMAC-SHA256, credential=" + accessKey + ":" + v.signature
		if got := req.Header.Get("Authorization"); got != want {
			t.Errorf("%s %s: Authorization is %q, want %q", v.method, v.target, got, want)
		}
		if got := req.Header.Get("Date"); got != "2022-06-23T04:05:06.123456+00:00" {
			t.Errorf("Date is %q", got)
		}
		if got := req.Header.Get("Content-Type"); got != v.contentType {
			t.Errorf("Content-Type is %q, want %q", got, v.contentType)
		}
		if key, err := auth.Verify(received(t, req), now, lookup); err != nil || key != accessKey {
			t.Errorf("%s %s: Verify = %q, %v", v.method, v.target, key, err)
		}
	}
}

// received is req as a server reads it from the wire.
func received(t *testing.T, req *http.Request) *http.Request {
	t.Helper()
	var wire bytes.Buffer
	if err := req.Write(&wire); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&wire))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func signed(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	auth.Sign(req, accessKey, secretKey, version, "text/plain", now)
	return received(t, req)
}

func TestTamperedRequestsFail(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*http.Request)
		code   backendai.Code
	}{
		"method":         {func(r *http.Request) { r.Method = "DELETE" }, backendai.CodeAuthFailed},
		"path":           {func(r *http.Request) { r.RequestURI = "/session/other" }, backendai.CodeAuthFailed},
		"query":          {func(r *http.Request) { r.RequestURI += "&b=2" }, backendai.CodeAuthFailed},
		"host":           {func(r *http.Request) { r.Host = "elsewhere:8081" }, backendai.CodeAuthFailed},
		"port":           {func(r *http.Request) { r.Host = "127.0.0.1:8082" }, backendai.CodeAuthFailed},
		"media type":     {func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, backendai.CodeAuthFailed},
		"no media type":  {func(r *http.Request) { r.Header.Del("Content-Type") }, backendai.CodeAuthFailed},
		"version":        {func(r *http.Request) { r.Header.Set(auth.HeaderVersion, "v5.20191215") }, backendai.CodeAuthFailed},
		"other date":     {func(r *http.Request) { r.Header.Set("Date", "2022-06-23T04:05:07+00:00") }, backendai.CodeAuthFailed},
		"anonymous":      {func(r *http.Request) { r.Header.Del("Authorization") }, backendai.CodeAuthFailed},
		"unknown key":    {replace(accessKey, "AKIAAAAAAAAAAAAAAAAA"), backendai.CodeAuthFailed},
		"no version":     {func(r *http.Request) { r.Header.Del(auth.HeaderVersion) }, backendai.CodeInvalidAuth},
		"no date":        {func(r *http.Request) { r.Header.Del("Date") }, backendai.CodeInvalidAuth},
		"bad date":       {func(r *http.Request) { r.Header.Set("Date", "yesterday") }, backendai.CodeInvalidAuth},
		"type":           {replace("BackendAI", "Bearer"), backendai.CodeInvalidAuth},
		"hash":           {replace("SHA256", "SHA1"), backendai.CodeInvalidAuth},
		"no credential":  {replace("credential", "cred"), backendai.CodeInvalidAuth},
		"no signature":   {replace(":", "-"), backendai.CodeInvalidAuth},
		"not hex":        {replace(":", ":zz"), backendai.CodeInvalidAuth},
		"short":          {func(r *http.Request) { h := r.Header; h.Set("Authorization", h.Get("Authorization")[:80]) }, backendai.CodeAuthFailed},
		"field no value": {replace("signMethod=", "signMethod"), backendai.CodeInvalidAuth},
	} {
		t.Run(name, func(t *testing.T) {
			r := signed(t, "http://127.0.0.1:8081/session?a=1")
			c.change(r)
			if key, err := auth.Verify(r, now, lookup); backendai.CodeOf(err) != c.code || key != "" {
				t.Errorf("Verify = %q, %v; want the code %s", key, err, c.code)
			}
		})
	}
}

func replace(old, with string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, with, 1))
	}
}

func TestWrongSecret(t *testing.T) {
	r := signed(t, "http://127.0.0.1:8081/")
	_, err := auth.Verify(r, now, func(string) (string, error) { return "other", nil })
	if backendai.CodeOf(err) != backendai.CodeAuthFailed {
		t.Errorf("Verify = %v", err)
	}
}

func TestLookupErrorIsReturnedAsItIs(t *testing.T) {
	want := errors.New("database is away")
	_, err := auth.Verify(signed(t, "http://h/"), now, func(string) (string, error) { return "", want })
	if !errors.Is(err, want) {
		t.Errorf("Verify = %v", err)
	}
}

func TestClockSkew(t *testing.T) {
	r := signed(t, "http://127.0.0.1:8081/session")
	for _, d := range []time.Duration{-auth.MaxSkew, 0, auth.MaxSkew} {
		if _, err := auth.Verify(r, now.Add(d), lookup); err != nil {
			t.Errorf("%s off: %v", d, err)
		}
	}
	for _, d := range []time.Duration{-time.Hour, time.Hour, auth.MaxSkew + time.Second} {
		_, err := auth.Verify(r, now.Add(d), lookup)
		e, ok := errors.AsType[*backendai.Error](err)
		if !ok || e.Code != backendai.CodeInvalidAuth {
			t.Fatalf("%s off: %v", d, err)
		}
		for _, clock := range []time.Time{now, now.Add(d)} {
			if !strings.Contains(e.Hint, clock.Format(time.RFC3339)) {
				t.Errorf("the hint %q does not tell the clock %s", e.Hint, clock)
			}
		}
	}
}

func TestDefaultPortMayBeMissingFromHost(t *testing.T) {
	for url, host := range map[string]string{
		"http://example.org:80/session": "example.org", "https://example.org:443/session": "example.org",
		"http://[::1]:80/session": "[::1]", "http://example.org/session": "example.org",
	} {
		r := signed(t, url)
		r.Host = host
		if _, err := auth.Verify(r, now, lookup); err != nil {
			t.Errorf("%s received with Host %s: %v", url, host, err)
		}
	}
	r := signed(t, "http://example.org:8081/")
	r.Host = "example.org"
	if _, err := auth.Verify(r, now, lookup); err == nil {
		t.Error("a port that is no default may not be missing")
	}
}

// TestOtherForms holds what old clients send. The signatures were computed with
// the standard library of Python from the description of the protocol.
func TestOtherForms(t *testing.T) {
	for name, c := range map[string]struct{ date, dateHeader, versionHeader, authorization string }{
		"sorna":      {"2022-06-23T04:05:06+00:00", "X-Sorna-Date", "X-Sorna-Version", "Sorna signMethod=HMAC-SHA256, credential=" + accessKey + ":SORNA"},
		"rfc1123":    {"Thu, 23 Jun 2022 04:05:06 GMT", "Date", auth.HeaderVersion, "BackendAI signMethod=HMAC-SHA512,credential=" + accessKey + ":RFC1123"},
		"rfc850":     {"Thursday, 23-Jun-22 04:05:06 GMT", "Date", auth.HeaderVersion, "BackendAI signMethod=HMAC-SHA384, credential=" + accessKey + ":RFC850"},
		"compact":    {"20220623T040506Z", "X-BackendAI-Date", auth.HeaderVersion, "BackendAI signMethod=HMAC-SHA256, credential=" + accessKey + ":COMPACT"},
		"no zone":    {"2022-06-23T04:05:06", "Date", auth.HeaderVersion, "BackendAI signMethod=HMAC-SHA256, credential=" + accessKey + ":NOZONE"},
		"other zone": {"2022-06-22T23:05:06-05:00", "Date", auth.HeaderVersion, "BackendAI signMethod=HMAC-SHA256, credential=" + accessKey + ":ZONE"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/session/x", nil)
			r.RequestURI, r.Host = "/session/x", "127.0.0.1:8081"
			r.Header.Set(c.dateHeader, c.date)
			r.Header.Set(c.versionHeader, "v4.20190615")
			head, label, _ := strings.Cut(c.authorization, ":")
			r.Header.Set("Authorization", head+":"+formSignatures[label])
			if _, err := auth.Verify(r, now, lookup); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnonymous(t *testing.T) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://h/", nil)
	if err != nil {
		t.Fatal(err)
	}
	auth.Sign(req, "", "", version, "text/plain", now)
	if got := req.Header.Get("Authorization"); got != "" {
		t.Errorf("an anonymous request has Authorization %q", got)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("BackendAI signMethod=HMAC-SHA256, credential=A:00", "2022-06-23T04:05:06+00:00", "text/plain", "host", "/x")
	f.Add("Sorna credential=:,,=", "Thu, 23 Jun 2022 04:05:06 GMT", ";;", "[::1", "")
	f.Fuzz(func(t *testing.T, authorization, date, contentType, host, target string) {
		r := &http.Request{Method: "GET", Host: host, RequestURI: target, Header: http.Header{
			"Authorization": {authorization}, "Date": {date}, "Content-Type": {contentType}, "X-Backendai-Version": {version},
		}}
		if _, err := auth.Verify(r, now, lookup); err == nil {
			t.Errorf("a signature was found without the secret: %q", authorization)
		}
	})
}

var formSignatures = map[string]string{
	"SORNA":   "971550d3236cb7d2db6d103d3bb698aea222c944065a5cd4fbd1186dd123cc85",
	"RFC1123": "b5e9c817b97bcc78465914bfad61f4fde16489bbbd46a5e2064d1cf2b483051c880855407120f4743c72a01396711c4d99ad57cab2d512da6f1d1f2a17262bee",
	"RFC850":  "c1cd23178f208bc95b7cc8935c53e35d03335e595469ed349de89d73abf0cbc68b97b1c0781c389907a46c8606d2303a",
	"COMPACT": "acffd5dcf0727589e85647a6b12270ad3e255c63c142ba2919eb17df97658b8e",
	"NOZONE":  "44091d712f8c3d59a5596fb95d79c8b6ac33faf82fce425dbe37999415ec7391",
	"ZONE":    "daa0cb2eaa0cbfd53833e41285002a59814457738ef2a0b5cc23bd3076db8ffa",
}
