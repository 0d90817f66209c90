package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"backendai/internal/client"
	"backendai/internal/version"
)

// newConfigCommand is "config".
func newConfigCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Show which server is used, and as whom", Args: arguments(),
		Long: `Shows the configuration of the client, where each value comes from, and the versions of the client and the server. It succeeds when the server does not answer too.

Each value is taken from the variable BACKEND_<NAME>, else SORNA_<NAME>, else the profile file, else the default. The names: ENDPOINT (one or more addresses with commas), ACCESS_KEY, SECRET_KEY, DOMAIN, GROUP, VFOLDER_MOUNTS, SKIP_SSLCERT_VALIDATION, CONNECTION_TIMEOUT and READ_TIMEOUT (seconds). The profile is backend.ai/profile.toml in the user's configuration folder, has the keys endpoint, access_key, secret_key, domain and group, and must not be readable by others.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := e.config()
			if err != nil {
				return err
			}
			c, err := e.client()
			if err != nil {
				return err
			}
			info, err := c.Greet(cmd.Context())
			server, negotiated := "does not answer", "-"
			if err == nil {
				server, negotiated = fmt.Sprintf("%s (API: %s)", info.Manager, info.API), info.Negotiated
			} else if cmd.Context().Err() != nil {
				return err
			}
			return e.showConfig(config, server, negotiated)
		},
	}
	return document(cmd, manual{examples: [][2]string{
		{"Which server is that?", "backend.ai config"},
		{"Another server for one command", "BACKEND_ENDPOINT=https://cluster.example.com backend.ai config"},
	}})
}

func (e *env) showConfig(config client.Config, server, negotiated string) error {
	accessKey := config.AccessKey
	if accessKey == "" {
		accessKey = "(anonymous)"
	}
	rows := [][]string{
		{"Endpoint", strings.Join(config.Endpoints, ", "), config.Sources["ENDPOINT"]},
		{"Client version", version.String() + " (API: " + client.ClientAPI() + ")", ""},
		{"Server version", server, ""},
		{"Negotiated API version", negotiated, ""},
		{"Domain name", config.Domain, config.Sources["DOMAIN"]},
		{"Group name", config.Group, config.Sources["GROUP"]},
		{"Access key", accessKey, config.Sources["ACCESS_KEY"]},
		{"Secret key", mask(config.SecretKey), config.Sources["SECRET_KEY"]},
		{"Signature hash type", "sha256", ""},
		{"Skip SSL certificate validation", plainCell(config.SkipTLSVerify), e.skipSource(config)},
	}
	if e.output == outputConsole {
		return e.term.Table([]string{"Setting", "Value", "From"}, rows)
	}
	object := item{}
	for _, row := range rows {
		name := strings.ReplaceAll(strings.ToLower(row[0]), " ", "_")
		object = append(object, entry{name, map[string]string{"value": row[1], "from": row[2]}})
	}
	return e.term.JSON(object)
}

func (e *env) skipSource(config client.Config) string {
	if e.skipTLS {
		return "--skip-sslcert-validation"
	}
	return config.Sources["SKIP_SSLCERT_VALIDATION"]
}

// mask shows as much of a secret as tells two apart, and only of long ones.
func mask(secret string) string {
	const head, tail = 4, 2
	switch {
	case secret == "":
		return "(none)"
	case len(secret) < 4*(head+tail):
		return "(hidden)"
	}
	return secret[:head] + strings.Repeat("*", 8) + secret[len(secret)-tail:]
}
