package backendai

// Protocol is what an app speaks on its port; it decides the address that
// clients show ("http" gives an http:// URL), never how bytes travel.
type Protocol string

// The protocols of service ports (API section 11).
const (
	ProtocolTCP     Protocol = "tcp"
	ProtocolHTTP    Protocol = "http"
	ProtocolPreopen Protocol = "preopen"
	ProtocolVNC     Protocol = "vnc"
	ProtocolRDP     Protocol = "rdp"
)

// App is a service of a session that a tunnel can lead to. It marshals to the
// protocol's form (API section 4.5).
type App struct {
	Name             string   `json:"name"`
	Protocol         Protocol `json:"protocol"`
	Ports            []int    `json:"ports"` // inside the container; the first is the primary one
	URLTemplate      string   `json:"url_template,omitempty"`
	AllowedArguments []string `json:"allowed_arguments,omitempty"`
	AllowedEnvs      []string `json:"allowed_envs,omitempty"`
}

// The apps that every session has, and their ports inside (API section 13).
const (
	AppSSHD  = "sshd"
	AppTTYD  = "ttyd"
	PortSSHD = 2200
	PortTTYD = 7681
)

// ReservedPorts may be neither service nor preopen ports.
func ReservedPorts() []int { return []int{2000, 2001, 2002, 2003, PortSSHD, PortTTYD} }
