package oci

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// The user of every session.
const (
	userName = "work"
	userID   = 1000
	homePath = "/home/work"
)

// mergePasswd gives the image's passwd with the session's user in it: entries
// that have its name or its number make way, all others stay as they are.
func mergePasswd(image []byte, shell string) []byte {
	own := fmt.Sprintf("%s:x:%d:%d:%s:%s:%s\n", userName, userID, userID, userName, homePath, shell)
	merged := mergeAccounts(image, own)
	if !hasAccount(merged, "root") {
		merged = append([]byte("root:x:0:0:root:/root:/sbin/nologin\n"), merged...)
	}
	return merged
}

// mergeGroup is mergePasswd for groups. Members of a group that makes way lose
// it; the session's user is in no other group.
func mergeGroup(image []byte) []byte {
	own := fmt.Sprintf("%s:x:%d:\n", userName, userID)
	merged := mergeAccounts(image, own)
	if !hasAccount(merged, "root") {
		merged = append([]byte("root:x:0:\n"), merged...)
	}
	return merged
}

func mergeAccounts(image []byte, own string) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(image) {
		fields := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(fields) < 3 {
			continue
		}
		if id, err := strconv.Atoi(fields[2]); fields[0] == userName || err != nil || id == userID {
			continue
		}
		out.Write(bytes.TrimRight(line, "\r\n"))
		out.WriteByte('\n')
	}
	out.WriteString(own)
	return out.Bytes()
}

func hasAccount(file []byte, name string) bool {
	return bytes.HasPrefix(file, []byte(name+":")) || bytes.Contains(file, []byte("\n"+name+":"))
}
