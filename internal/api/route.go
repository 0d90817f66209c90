package api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"backendai"
)

// route is one method of one path. A segment "{x}" of the pattern stands for
// any text without a slash; a literal segment wins over it.
type route struct {
	method     string
	pattern    string
	handle     func(*call) error
	open       bool // needs no signature
	superadmin bool // for superadmins only
	long       bool // waits for a session or streams: no time limit
	rawBody    bool // the body is data; parameters stand in the query
}

// table lists every route.
func (h *Handler) table() []route {
	return slices.Concat(h.platformRoutes(), h.folderRoutes(), h.storageRoutes())
}

func (h *Handler) platformRoutes() []route {
	return []route{
		{method: "GET", pattern: "/", handle: h.greet, open: true},
		{method: "GET", pattern: "/manager/announcement", handle: h.announcement},

		{method: "GET", pattern: "/auth", handle: h.authTest},
		{method: "POST", pattern: "/auth", handle: h.authTest},
		{method: "GET", pattern: "/auth/test", handle: h.authTest},
		{method: "POST", pattern: "/auth/test", handle: h.authTest},
		{method: "GET", pattern: "/auth/role", handle: h.authRole},
		{method: "GET", pattern: "/auth/ssh-keypair", handle: h.sshKeypair},
		{method: "PATCH", pattern: "/auth/ssh-keypair", handle: h.newSSHKeypair},
		{method: "POST", pattern: "/auth/ssh-keypair", handle: h.setSSHKeypair},

		{method: "GET", pattern: "/user-config/dotfiles", handle: h.getDotfiles},
		{method: "POST", pattern: "/user-config/dotfiles", handle: h.createDotfile},
		{method: "PATCH", pattern: "/user-config/dotfiles", handle: h.updateDotfile},
		{method: "DELETE", pattern: "/user-config/dotfiles", handle: h.deleteDotfile},
		{method: "GET", pattern: "/user-config/bootstrap-script", handle: h.bootstrapScript},
		{method: "POST", pattern: "/user-config/bootstrap-script", handle: h.setBootstrapScript},

		{method: "GET", pattern: "/config/resource-slots", handle: h.resourceSlots},
		{method: "GET", pattern: "/config/vfolder-types", handle: h.vfolderTypes},
		{method: "GET", pattern: "/resource/presets", handle: h.resourcePresets},
		{method: "GET", pattern: "/scaling-groups", handle: h.scalingGroups},

		{method: "POST", pattern: "/session", handle: h.createSession, long: true},
		{method: "POST", pattern: "/session/_/create", handle: h.createSession, long: true},
		{method: "GET", pattern: "/session/_/match", handle: h.matchSessions},
		{method: "GET", pattern: "/session/{name}", handle: h.sessionInfo},
		{method: "DELETE", pattern: "/session/{name}", handle: h.destroySession, long: true},
		{method: "PATCH", pattern: "/session/{name}", handle: h.restartSession, long: true},
		{method: "POST", pattern: "/session/{name}/rename", handle: h.renameSession},
		{method: "GET", pattern: "/session/{name}/logs", handle: h.sessionLogs, long: true},
		{method: "GET", pattern: "/session/{name}/ssh-host-keys", handle: h.hostKeys},
		{method: "GET", pattern: "/session/{name}/terminals", handle: h.terminals},
		{method: "DELETE", pattern: "/session/{name}/terminals/{terminal}", handle: h.endTerminal},
		{method: "POST", pattern: "/session/{name}/interrupt", handle: h.interruptSession},
		{method: "POST", pattern: "/session/{name}/shutdown-service", handle: h.shutdownService},
		{method: "GET", pattern: "/session/{name}/status-history", handle: h.statusHistory},
		{method: "GET", pattern: "/session/{name}/download", handle: h.download},
		{method: "POST", pattern: "/session/{name}/download", handle: h.download},
		{method: "GET", pattern: "/session/{name}/download_single", handle: h.downloadSingle, long: true},
		{method: "POST", pattern: "/session/{name}/download_single", handle: h.downloadSingle, long: true},
		{method: "GET", pattern: "/session/{name}/files", handle: h.sessionFiles},
		{method: "POST", pattern: "/session/{name}/upload", handle: h.uploadFiles, long: true, rawBody: true},
		{method: "GET", pattern: "/session/{name}/archive", handle: h.sendArchive, long: true},
		{method: "POST", pattern: "/session/{name}/archive", handle: h.takeArchive, long: true, rawBody: true},

		{method: "GET", pattern: "/stream/session/{name}/apps", handle: h.apps},
		{method: "GET", pattern: "/stream/session/{name}/tcpproxy", handle: h.proxy, long: true},
		{method: "GET", pattern: "/stream/session/{name}/httpproxy", handle: h.proxy, long: true},
		{method: "GET", pattern: "/events/session", handle: h.sessionEvents, long: true},

		{method: "GET", pattern: "/events/background-task", handle: h.backgroundTask, long: true},

		{method: "POST", pattern: "/admin/gql", handle: h.graphQL},
		{method: "POST", pattern: "/admin/graphql", handle: h.legacyGraphQL},

		{method: "GET", pattern: "/image", handle: h.listImages, superadmin: true},
		{method: "DELETE", pattern: "/image", handle: h.removeImage, superadmin: true},
		{method: "POST", pattern: "/image/pull", handle: h.pullImage, superadmin: true, long: true},
		{method: "POST", pattern: "/image/build", handle: h.buildImage, superadmin: true, long: true},
		{method: "POST", pattern: "/image/import", handle: h.importImage, superadmin: true, long: true, rawBody: true},
	}
}

func (h *Handler) folderRoutes() []route {
	trash := h.onFolder(http.StatusNoContent, h.trashFolder)
	removeFiles, renameFile, moveFile := h.onFolder(http.StatusOK, h.deleteFiles), h.onFolder(http.StatusOK, h.renameFile), h.onFolder(http.StatusOK, h.moveFile)
	return []route{
		{method: "GET", pattern: "/folders", handle: h.listFolders},
		{method: "POST", pattern: "/folders", handle: h.createFolder},
		{method: "DELETE", pattern: "/folders", handle: trash},
		{method: "GET", pattern: "/folders/_/id", handle: h.folderID},
		{method: "GET", pattern: "/folders/_/hosts", handle: h.folderHosts},
		{method: "GET", pattern: "/folders/_/all-hosts", handle: h.folderHosts},
		{method: "GET", pattern: "/folders/_/all_hosts", handle: h.folderHosts},
		{method: "GET", pattern: "/folders/_/allowed-types", handle: h.folderTypes},
		{method: "GET", pattern: "/folders/_/allowed_types", handle: h.folderTypes},
		{method: "POST", pattern: "/folders/restore-from-trash-bin", handle: h.onFolder(http.StatusNoContent, h.restoreFolder)},
		{method: "POST", pattern: "/folders/delete-from-trash-bin", handle: h.onFolder(http.StatusNoContent, h.eraseFolder)},
		{method: "POST", pattern: "/folders/purge", handle: h.onFolder(http.StatusNoContent, h.purgeFolder)},
		{method: "GET", pattern: "/folders/invitations/list", handle: h.invitations(false)},
		{method: "GET", pattern: "/folders/invitations/list-sent", handle: h.invitations(true)},
		{method: "GET", pattern: "/folders/invitations/list_sent", handle: h.invitations(true)},
		{method: "POST", pattern: "/folders/invitations/accept", handle: h.acceptInvitation},
		{method: "DELETE", pattern: "/folders/invitations/delete", handle: h.declineInvitation},
		{method: "POST", pattern: "/folders/invitations/delete", handle: h.declineInvitation},

		{method: "GET", pattern: "/folders/{folder}", handle: h.folderInfo},
		{method: "DELETE", pattern: "/folders/{folder}", handle: trash},
		{method: "DELETE", pattern: "/folders/{folder}/force", handle: h.onFolder(http.StatusNoContent, h.forceFolder)},
		{method: "POST", pattern: "/folders/{folder}/rename", handle: h.onFolder(http.StatusCreated, h.renameFolder)},
		{method: "POST", pattern: "/folders/{folder}/update-options", handle: h.onFolder(http.StatusCreated, h.updateFolder)},
		{method: "POST", pattern: "/folders/{folder}/clone", handle: h.cloneFolder, long: true},
		{method: "POST", pattern: "/folders/{folder}/invite", handle: h.inviteToFolder},
		{method: "POST", pattern: "/folders/{folder}/share", handle: h.shareFolder},
		{method: "DELETE", pattern: "/folders/{folder}/unshare", handle: h.unshareFolder},
		{method: "POST", pattern: "/folders/{folder}/unshare", handle: h.unshareFolder},
		{method: "POST", pattern: "/folders/{folder}/leave", handle: h.leaveFolder},
		{method: "GET", pattern: "/folders/{folder}/files", handle: h.folderFiles},
		{method: "POST", pattern: "/folders/{folder}/mkdir", handle: h.makeFolders},
		{method: "POST", pattern: "/folders/{folder}/rename-file", handle: renameFile},
		{method: "POST", pattern: "/folders/{folder}/rename_file", handle: renameFile},
		{method: "POST", pattern: "/folders/{folder}/move-file", handle: moveFile},
		{method: "POST", pattern: "/folders/{folder}/move_file", handle: moveFile},
		{method: "DELETE", pattern: "/folders/{folder}/delete-files", handle: removeFiles, long: true},
		{method: "POST", pattern: "/folders/{folder}/delete-files", handle: removeFiles, long: true},
		{method: "DELETE", pattern: "/folders/{folder}/delete_files", handle: removeFiles, long: true},
		{method: "POST", pattern: "/folders/{folder}/delete_files", handle: removeFiles, long: true},
		{method: "POST", pattern: "/folders/{folder}/request-upload", handle: h.requestUpload},
		{method: "POST", pattern: "/folders/{folder}/request-upload-archive", handle: h.requestFill},
		{method: "POST", pattern: "/folders/{folder}/request-download", handle: h.requestDownload},
		{method: "POST", pattern: "/folders/{folder}/request-download-archive", handle: h.requestDownloadArchive},
	}
}

// storageRoutes are open to whoever holds a token in the query.
func (h *Handler) storageRoutes() []route {
	routes := []route{
		{method: "GET", pattern: storageBase, handle: h.storageStatus, open: true},
		{method: "GET", pattern: storageBase + "/download", handle: h.storageDownload, open: true},
		{method: "POST", pattern: storageBase + "/download", handle: h.storageDownload, open: true},
		{method: "GET", pattern: storageBase + "/download-archive", handle: h.storageDownload, open: true},
		{method: "GET", pattern: storageBase + "/tree", handle: h.storageTree, open: true},
		{method: "GET", pattern: storageBase + "/checksum", handle: h.storageChecksum, open: true},
		{method: "POST", pattern: storageBase + "/upload-archive", handle: h.storageFill, open: true},
		{method: "POST", pattern: storageBase + "/upload-archive/compare", handle: h.storageSame, open: true},
	}
	for _, method := range []string{"OPTIONS", "HEAD", "POST", "PATCH", "DELETE"} {
		for _, pattern := range []string{"/upload", "/upload/{upload}", "/upload/{upload}/{part}"} {
			routes = append(routes, route{method: method, pattern: storageBase + pattern, handle: h.storageUpload, open: true})
		}
	}
	return routes
}

// find gives the route of a request and the texts of its pattern's names.
func (h *Handler) find(r *http.Request) (route, map[string]string, error) {
	segments, ok := split(r.URL)
	var best *route
	var allowed []string
	for i := range h.routes {
		rt := &h.routes[i]
		if !ok || !rt.matches(segments) {
			continue
		}
		allowed = append(allowed, rt.method)
		if rt.method != r.Method && (rt.method != http.MethodGet || r.Method != http.MethodHead) {
			continue
		}
		if best == nil || rt.wildcards() < best.wildcards() {
			best = rt
		}
	}
	switch {
	case best != nil:
		return *best, best.names(segments), nil
	case len(allowed) > 0:
		slices.Sort(allowed)
		list := strings.Join(slices.Compact(allowed), ", ")
		return route{}, nil, backendai.Errorf(backendai.CodeMethod, "%s is not for %s", r.Method, r.URL.Path).
			WithHint("the methods of this path are: %s", list).WithData(list)
	default:
		return route{}, nil, backendai.Errorf(backendai.CodeURLNotFound, "unknown URL path: %s", r.URL.Path).WithData(r.URL.Path)
	}
}

// split gives the decoded segments of a path. A trailing slash does not count,
// and "kernel" is what sessions were called up to API version 4.
func split(u *url.URL) ([]string, bool) {
	path := strings.Trim(u.EscapedPath(), "/")
	if path == "" {
		return nil, true
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		text, err := url.PathUnescape(s)
		if err != nil || text == "" {
			return nil, false
		}
		segments[i] = text
	}
	noun := 0
	if segments[0] == "stream" && len(segments) > 1 {
		noun = 1
	}
	if segments[noun] == "kernel" {
		segments[noun] = "session"
	}
	return segments, true
}

func (rt *route) segments() []string {
	if rt.pattern == "/" {
		return nil
	}
	return strings.Split(rt.pattern[1:], "/")
}

func wild(segment string) bool { return strings.HasPrefix(segment, "{") }

func (rt *route) matches(segments []string) bool {
	want := rt.segments()
	if len(want) != len(segments) {
		return false
	}
	for i, s := range want {
		if !wild(s) && s != segments[i] {
			return false
		}
	}
	return true
}

func (rt *route) wildcards() int { return strings.Count(rt.pattern, "{") }

func (rt *route) names(segments []string) map[string]string {
	names := map[string]string{}
	for i, s := range rt.segments() {
		if wild(s) {
			names[strings.Trim(s, "{}")] = segments[i]
		}
	}
	return names
}

// Route names one route, for those who must visit all of them.
type Route struct{ Method, Pattern string }

// Routes lists every route; "{name}" in a pattern stands for a session.
func (h *Handler) Routes() []Route {
	list := make([]Route, 0, len(h.routes))
	for _, rt := range h.routes {
		list = append(list, Route{rt.method, rt.pattern})
	}
	return list
}
