package api_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestListsOfAccounts filters and orders what is listed from memory.
func TestListsOfAccounts(t *testing.T) {
	w := newWorld(t)
	for name, tt := range map[string]struct{ user, list, args, want string }{
		"user filter":    {"admin", "user_list", `filter: "role == \"user\" & username like \"a%\""`, `["alice"],1`},
		"user order":     {"admin", "user_list", `order: "-email"`, `["stranger","alice","admin"],3`},
		"filter of own":  {"alice", "user_list", `filter: "username != \"x\""`, `["alice"],1`},
		"no time":        {"admin", "user_list", `filter: "created_at == null"`, `["admin","alice","stranger"],3`},
		"keypair filter": {"admin", "keypair_list", `filter: "is_admin == true | user_id contains \"stranger\"", order: "+access_key"`, `["AKIAadmin","AKIAstranger"],2`},
		"keypair number": {"admin", "keypair_list", `filter: "rate_limit > 0"`, `[],0`},
		"keypair names":  {"admin", "keypair_list", `filter: "full_name == \"Full alice\"", is_active: true`, `["AKIAalice"],1`},
	} {
		t.Run(name, func(t *testing.T) {
			field := map[string]string{"user_list": "username", "keypair_list": "access_key"}[tt.list]
			text := w.gql(tt.user, `{ `+tt.list+`(limit: 10, offset: 0, `+tt.args+`) { items { name: `+field+` } total_count } }`, `{}`)
			var reply struct {
				Data map[string]struct {
					Items []struct{ Name string }
					Total int `json:"total_count"`
				}
			}
			if err := json.Unmarshal([]byte(text), &reply); err != nil {
				t.Fatal(err)
			}
			found := []string{}
			for _, item := range reply.Data[tt.list].Items {
				found = append(found, item.Name)
			}
			got, err := json.Marshal([]any{found, reply.Data[tt.list].Total})
			if err != nil || string(got) != "["+tt.want+"]" {
				t.Errorf("got %s of %s", got, text)
			}
		})
	}
	for args, want := range map[string]string{
		`filter: "secret_key == x"`: `the filter is wrong at character 1: there is no field \"secret_key\"`,
		`filter: "username = x"`:    `the filter is wrong at character 10: = is no operator`,
		`order: "secret_key"`:       `the order is wrong at character 1: there is no field \"secret_key\"`,
	} {
		for _, list := range []string{"user_list", "keypair_list"} {
			if list == "keypair_list" && strings.Contains(args, "username") {
				continue
			}
			if text := w.gql("admin", `{ `+list+`(limit: 10, offset: 0, `+args+`) { total_count } }`, `{}`); !strings.Contains(text, want) {
				t.Errorf("%s %s: %s", list, args, text)
			}
		}
	}
}
