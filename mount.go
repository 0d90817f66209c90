package backendai

// Mount is one folder in a session.
type Mount struct {
	Source     string `json:"source"`     // as asked for: a folder's name or UUID, and a subpath: "name/sub"
	Target     string `json:"target"`     // absolute inside the container
	Permission string `json:"permission"` // "ro", "rw" or "wd"; empty in a request takes the folder's
	FolderID   string `json:"folder_id"`  // UUID; empty until the folder is resolved
	Subpath    string `json:"subpath"`    // below the folder; empty is all of it
	Auto       bool   `json:"auto"`       // nobody asked: the folder's name begins with a dot
}
