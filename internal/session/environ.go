package session

import (
	"cmp"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"backendai"
	"backendai/internal/image/service"
)

// The inside of a session (API section 13).
const (
	home     = "/home/work"
	loopback = "127.0.0.1"
	hostname = "main1" // the name of the only container of a cluster
	userName = "work"
	userID   = "1000"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// platformOwned tells the variables that nobody but the platform sets: programs
// rely on them, and the home is where it is.
func platformOwned(name string) bool {
	return name == "HOME" || strings.HasPrefix(name, "BACKENDAI_")
}

// environ is the environment of everything that runs in a session: the image's
// own, then the platform's, then what the user asked for (API section 13).
func environ(one *backendai.Session, image backendai.Image) map[string]string {
	env := map[string]string{"LANG": "C.UTF-8", "TERM": "xterm", "PATH": defaultPath}
	for _, text := range image.Env {
		if name, value, ok := strings.Cut(text, "="); ok && backendai.ValidEnvName(name) && !strings.ContainsRune(value, 0) {
			env[name] = value
		}
	}
	// What pip and others install for the user comes first.
	env["PATH"] = home + "/.local/bin:" + cmp.Or(env["PATH"], defaultPath)
	cores := strconv.FormatInt(max(1, (one.Requested[backendai.SlotCPU]+999)/1000), 10)
	for name := range strings.SplitSeq(image.Labels[service.LabelCoreCount], ",") {
		if name = strings.TrimSpace(name); backendai.ValidEnvName(name) && !platformOwned(name) {
			env[name] = cores
		}
	}
	maps.Copy(env, map[string]string{
		"HOME": home, "USER": userName, "LOGNAME": userName,
		"LOCAL_USER_ID": userID, "LOCAL_GROUP_ID": userID, "GPU_COUNT": "0", "N_GPUS": "0",
		"BACKENDAI_SESSION_ID": one.ID, "BACKENDAI_SESSION_NAME": one.Name, "BACKENDAI_KERNEL_ID": one.ID, "BACKENDAI_KERNEL_IMAGE": one.Image,
		"BACKENDAI_ACCESS_KEY": one.AccessKey, "BACKENDAI_USER_UUID": one.UserID,
		"BACKENDAI_USER_EMAIL": one.UserEmail, "BACKENDAI_USER_NAME": one.UserName,
		"BACKENDAI_CLUSTER_ROLE": "main", "BACKENDAI_CLUSTER_IDX": "1", "BACKENDAI_CLUSTER_LOCAL_RANK": "0",
		"BACKENDAI_CLUSTER_HOST": hostname, "BACKENDAI_CLUSTER_HOSTS": hostname,
		"BACKENDAI_CLUSTER_SIZE": "1", "BACKENDAI_CLUSTER_REPLICAS": "main:1",
		"BACKENDAI_SERVICE_PORTS": allPorts(one, image), "BACKENDAI_PREOPEN_PORTS": joinPorts(one.PreopenPorts, ","),
		"BACKENDAI_PERSISTENT_PATHS": persistentPaths(one),
	})
	for name, value := range one.Environ {
		if !platformOwned(name) {
			env[name] = value
		}
	}
	return env
}

// allPorts lists the apps of a session as the service-ports label does.
func allPorts(one *backendai.Session, image backendai.Image) string {
	apps := []backendai.App{
		{Name: backendai.AppSSHD, Protocol: backendai.ProtocolTCP, Ports: []int{backendai.PortSSHD}},
		{Name: backendai.AppTTYD, Protocol: backendai.ProtocolHTTP, Ports: []int{backendai.PortTTYD}},
	}
	for _, port := range one.PreopenPorts {
		apps = append(apps, backendai.App{Name: strconv.Itoa(port), Protocol: backendai.ProtocolPreopen, Ports: []int{port}})
	}
	return service.FormatServicePorts(append(apps, imageApps(image)...))
}

func persistentPaths(one *backendai.Session) string {
	paths := make([]string, len(one.Mounts))
	for i, m := range one.Mounts {
		paths[i] = m.Target
	}
	return strings.Join(paths, ":")
}

func runtimePath(image backendai.Image) string {
	return cmp.Or(image.Labels[service.LabelRuntimePath], service.DefaultRuntimePath)
}

// motd is what an interactive login reads first.
func motd(one *backendai.Session) string {
	return fmt.Sprintf("Session %s, made from %s.\n"+
		"Everything outside of mounted folders ends with the session.\n", one.Name, one.Image)
}
