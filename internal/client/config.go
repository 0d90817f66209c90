package client

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"backendai"
)

// DefaultEndpoint is where a server of this machine listens unless told otherwise.
const DefaultEndpoint = "http://127.0.0.1:8090"

// Config is which server a client speaks to and as whom.
type Config struct {
	Endpoints []string // base URLs of one cluster, which may have paths
	AccessKey string   // empty means anonymous
	SecretKey string
	Domain    string
	Group     string
	Mounts    []string // folders that every new session gets
	// StorageProxies replaces what begins an address of files by something else.
	StorageProxies map[string]string
	SkipTLSVerify  bool
	ConnectTimeout time.Duration
	ReadTimeout    time.Duration // until the answer begins; 0 is no limit

	// Sources tells where each value comes from, by its name in the
	// environment without prefix: "default", the file, or the variable.
	Sources map[string]string
}

// LoadConfig reads the configuration: a variable BACKEND_<NAME>, else
// SORNA_<NAME>, else the profile at profilePath (if there is one), else a default.
func LoadConfig(getenv func(string) string, profilePath string) (Config, error) {
	profile, found, err := readProfileIfAny(profilePath)
	if err != nil {
		return Config{}, err
	}
	r := reader{getenv: getenv, sources: map[string]string{}}
	if found {
		r.profilePath = profilePath
	}
	if kind := r.text("ENDPOINT_TYPE", "", "api"); kind != "api" {
		return Config{}, backendai.Errorf(backendai.CodeInvalidParams, "the endpoint type %q (%s) is not supported", kind, r.sources["ENDPOINT_TYPE"]).
			WithHint("this client signs its requests to the API of the server itself: unset the variable or set it to api")
	}
	c := Config{
		Endpoints: list(r.text("ENDPOINT", profile.Endpoint, DefaultEndpoint)),
		AccessKey: r.text("ACCESS_KEY", profile.AccessKey, ""),
		SecretKey: r.text("SECRET_KEY", profile.SecretKey, ""),
		Domain:    r.text("DOMAIN", profile.Domain, "default"),
		Group:     r.text("GROUP", profile.Group, "default"),
		Mounts:    list(r.text("VFOLDER_MOUNTS", "", "")),
		Sources:   r.sources,
	}
	if c.StorageProxies, err = ParseStorageProxies(r.text("OVERRIDE_STORAGE_PROXY", "", "")); err != nil {
		return Config{}, err
	}
	c.SkipTLSVerify = r.flag("SKIP_SSLCERT_VALIDATION")
	c.ConnectTimeout = r.seconds("CONNECTION_TIMEOUT", "10.0")
	c.ReadTimeout = r.seconds("READ_TIMEOUT", "0")
	if r.err != nil {
		return Config{}, r.err
	}
	for _, endpoint := range c.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return Config{}, backendai.Errorf(backendai.CodeInvalidParams, "the endpoint %q (%s) is not an address of a server", endpoint, c.Sources["ENDPOINT"]).
				WithHint("it has the form http://HOST:PORT or https://HOST, and several are separated by commas")
		}
	}
	return c, nil
}

// ParseStorageProxies reads X1=Y1,X2=Y2: what is to be replaced in the addresses
// of files by what.
func ParseStorageProxies(text string) (map[string]string, error) {
	proxies := map[string]string{}
	for _, pair := range list(text) {
		from, to, ok := strings.Cut(pair, "=")
		if !ok || from == "" {
			return nil, backendai.Errorf(backendai.CodeInvalidParams, "the storage proxy %q is not of the form X=Y", pair).
				WithHint("X is how the addresses of files begin, or their host; Y is what takes its place")
		}
		proxies[from] = to
	}
	return proxies, nil
}

// reader finds values and remembers where; the first fault stays in err.
type reader struct {
	getenv      func(string) string
	profilePath string
	sources     map[string]string
	err         error
}

func (r *reader) text(name, inProfile, fallback string) string {
	for _, prefix := range []string{"BACKEND_", "SORNA_"} {
		if v := r.getenv(prefix + name); v != "" {
			r.sources[name] = prefix + name
			return v
		}
	}
	if inProfile != "" {
		r.sources[name] = r.profilePath
		return inProfile
	}
	r.sources[name] = "default"
	return fallback
}

func (r *reader) flag(name string) bool {
	text := r.text(name, "", "no")
	switch strings.ToLower(text) {
	case "y", "yes", "t", "true", "1", "on":
		return true
	case "n", "no", "f", "false", "0", "off":
		return false
	}
	r.fault(name, text, "yes or no")
	return false
}

func (r *reader) seconds(name, fallback string) time.Duration {
	text := r.text(name, "", fallback)
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f >= 0 && f <= 1e9) {
		r.fault(name, text, "a number of seconds")
		return 0
	}
	return time.Duration(f * float64(time.Second))
}

func (r *reader) fault(name, text, want string) {
	if r.err == nil {
		r.err = backendai.Errorf(backendai.CodeInvalidParams, "%s=%s is not %s", r.sources[name], text, want).WithHint("correct or unset the variable")
	}
}

// list splits a comma list and leaves out what is empty.
func list(text string) []string {
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return slices.DeleteFunc(items, func(s string) bool { return s == "" })
}
