package backendai

// Mount is one folder in a session. Target is absolute inside the container.
type Mount struct {
	Source     string `json:"source"` // vfolder name, "name/subpath" or UUID
	Target     string `json:"target"`
	Permission string `json:"permission"` // "ro", "rw" or "wd"
}
