package filter

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
)

var fields = Fields{"name": Text, "tag": Text, "priority": Number, "created_at": Time, "ended_at": Time, "live": Bool}

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func object(field string) any {
	return map[string]any{
		"name": "train-1", "tag": "50%_x", "priority": 10.0, "created_at": now, "ended_at": time.Time{}, "live": true,
	}[field]
}

func TestMatch(t *testing.T) {
	for text, want := range map[string]bool{
		``:                                              true,
		"  \t\n ":                                       true,
		`name == "train-1"`:                             true,
		`name=='train-1'`:                               true,
		`name == train-1`:                               true,
		`name != "train-1"`:                             false,
		`name > "train-0"`:                              true,
		`name <= "train-1"`:                             true,
		`name < "train-1"`:                              false,
		`name contains "ain"`:                           true,
		`name contains "AIN"`:                           false,
		`name like "train%"`:                            true,
		`name like "train"`:                             false,
		`name like "%1"`:                                true,
		`name like "_rain-_"`:                           true,
		`name like "TRAIN%"`:                            false,
		`name ilike "TRAIN%"`:                           true,
		`name ILIKE "T%N%"`:                             true,
		`tag like "50\%\_x"`:                            true,
		`tag like "50\%%"`:                              true,
		`tag like "50\_%"`:                              false,
		`tag == "50%_x"`:                                true,
		`tag like "%%%%%%%%%%%x"`:                       true,
		`tag like ""`:                                   false,
		`name in ["a", "train-1"]`:                      true,
		`name in (a, b)`:                                false,
		`name in "train-1"`:                             true,
		`name in []`:                                    false,
		`priority == 10`:                                true,
		`priority >= 10.5`:                              false,
		`priority in [1, 10]`:                           true,
		`priority == "10"`:                              true,
		`created_at < "2026-02-01"`:                     true,
		`created_at == 2026-01-02T03:04:05Z`:            true,
		`created_at == "2026-01-02T05:04:05+02:00"`:     true,
		`created_at > "2026-01-02 03:04:04"`:            true,
		`created_at != null`:                            true,
		`ended_at == null`:                              true,
		`ended_at != null`:                              false,
		`ended_at < "2026-02-01"`:                       false,
		`ended_at != "2026-02-01"`:                      true,
		`!(ended_at < "2026-02-01")`:                    true,
		`live == true`:                                  true,
		`live == FALSE`:                                 false,
		`live != false`:                                 true,
		`name == a | name == b & priority == 10`:        false,
		`name == train-1 | name == b & priority == 0`:   true,
		`(name == train-1 | name == b) & priority == 0`: false,
		`!name == train-1`:                              false,
		`!!name == train-1`:                             true,
		`((((name == "train-1"))))`:                     true,
		`name == null`:                                  false,
		`name == "null" | name != null`:                 true,
		`name == "tr\"ain" | name == 'tr\'ain' | name == "\\"`: false,
	} {
		e, err := Parse(text, fields)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := e.Match(object); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}

func TestFaultsNameTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		`nome == "x"`:             `character 1: there is no field "nome"`,
		`name == "x" & nome == 1`: `character 15: there is no field "nome"`,
		`ñame == "x"`:             `character 1: there is no field "ñame"`,
		`name`:                    `character 5: the end stands where an operator is expected`,
		`name ==`:                 `character 8: the end stands where a value is expected`,
		`name = "x"`:              `character 6: = is no operator; equality is ==`,
		`name is "x"`:             `character 6: "is" stands where an operator is expected`,
		`name "==" "x"`:           `character 6: "==" stands where an operator is expected`,
		`name & "x"`:              `character 6: "&" stands where an operator is expected`,
		`name == "x`:              `character 9: the text that begins here has no closing "`,
		`name == "x" name == "y"`: `character 13: "name" stands where & or | or the end is expected`,
		`name == "x" &`:           `character 14: the end stands where a field is expected`,
		`(name == "x"`:            `character 13: the parenthesis of character 1 is not closed before the end`,
		`name == "x")`:            `character 12: ")" stands where & or | or the end is expected`,
		`name == (x)`:             `character 9: "(" stands where a value is expected`,
		`name in [x`:              `character 11: the end stands where , or ] is expected`,
		`name in [x)`:             `character 11: ")" stands where , or ] is expected`,
		`name in [,x]`:            `character 10: "," stands where a value is expected`,
		`name == "x"; DROP TABLE`: `character 12: ';' has no meaning here`,
		`priority == ten`:         `character 13: "ten" is not a number, which priority is`,
		`priority == nan`:         `character 13: "nan" is not a number, which priority is`,
		`priority contains "1"`:   `character 10: contains is for texts, which priority is not`,
		`created_at > yesterday`:  `character 14: "yesterday" is not a time such as 2026-01-02T15:04:05Z, which created_at is`,
		`created_at > 9999-01-01`: `character 14: "9999-01-01" is not a time`,
		`created_at > null`:       `character 14: null is neither less nor more than anything`,
		`live == maybe`:           `character 9: "maybe" is not true or false, which live is`,
		"name == \"a\x00b\"":      `character 11: there is a control character`,
		strings.Repeat("(", 50):   `character 18: there are more than 16 levels`,
		strings.Repeat("!", 50):   `character 18: there are more than 16 levels`,
		strings.Repeat("live==true&", 65) + "live==true":   `there are more than 64 comparisons`,
		`priority in [` + strings.Repeat("1,", 101) + `1]`: `there are more than 100 values`,
		strings.Repeat(" ", 5000) + "x":                    `the filter has more than 4KiB`,
	} {
		_, err := Parse(text, fields)
		if backendai.CodeOf(err) != backendai.CodeInvalidParams || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v; want %s", text, err, want)
		}
	}
	_, err := Parse("x == 1", fields)
	if e, ok := errors.AsType[*backendai.Error](err); !ok || e.Hint != "the fields are: created_at, ended_at, live, name, priority, tag" {
		t.Errorf("%#v", err)
	}
}

func TestOrder(t *testing.T) {
	keys, err := ParseOrder(" +name,-priority, - created_at ,tag", fields)
	if err != nil {
		t.Fatal(err)
	}
	want := []Key{{"name", false}, {"priority", true}, {"created_at", true}, {"tag", false}}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}
	if keys, err := ParseOrder(" ", fields); err != nil || keys != nil {
		t.Errorf("%v, %v", keys, err)
	}
	for text, want := range map[string]string{
		`name,nome`:                         `character 6: there is no field "nome"`,
		`name, -nome`:                       `character 7: there is no field "nome"`,
		`name,`:                             `character 6: a field is missing`,
		`+`:                                 `character 1: a field is missing`,
		`name;priority`:                     `character 1: there is no field "name;priority"`,
		strings.Repeat("name,", 8) + "name": `there are more than 8 fields`,
		strings.Repeat("name,", 1000):       `the order has more than 4KiB`,
	} {
		_, err := ParseOrder(text, fields)
		if backendai.CodeOf(err) != backendai.CodeInvalidParams || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v; want %s", text, err, want)
		}
	}
}

func TestCompare(t *testing.T) {
	other := func(field string) any {
		return map[string]any{"name": "train-1", "tag": "a", "priority": 9.0, "created_at": now, "ended_at": now, "live": false}[field]
	}
	for text, want := range map[string]int{
		"":                0,
		"name":            0,
		"tag":             -1,
		"-tag":            1,
		"name,created_at": 0,
		"name,priority":   1,
		"ended_at":        -1,
		"-live":           -1,
	} {
		keys, err := ParseOrder(text, fields)
		if err != nil {
			t.Fatal(err)
		}
		if got := Compare(keys, object, other); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// TestPatternsTakeBoundedTime would not end if wildcards were tried in every combination.
func TestPatternsTakeBoundedTime(t *testing.T) {
	if like(strings.Repeat("%a", 1000)+"b", strings.Repeat("a", 4000)) {
		t.Error("matched")
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`name == "x" & (priority >= 10 | !tag like "50\%%")`, `created_at < 2026-01-02T03:04:05Z`, `name in ['a', b]`, `live == true`, `((((`, `name == "`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text, fields)
		if err != nil {
			if backendai.CodeOf(err) != backendai.CodeInvalidParams || strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		e.Match(object)
	})
}

func FuzzParseOrder(f *testing.F) {
	f.Add("+name,-created_at")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := ParseOrder(text, fields)
		if err != nil && backendai.CodeOf(err) != backendai.CodeInvalidParams {
			t.Errorf("%q: %v", text, err)
		}
		if Compare(keys, object, object) != 0 {
			t.Errorf("%q: an object is not equal to itself", text)
		}
	})
}
