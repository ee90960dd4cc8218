package main

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	unknownKey = regexp.MustCompile(`(?s)^line (\d+): field (.+?) not found in type .+$`)
	wrongValue = regexp.MustCompile("(?s)^line (\\d+): cannot unmarshal (?:!!\\w+ )?(?:`(.*)` )?into (.+)$")
)

// explainYAMLError translates the errors of the YAML library into the words of
// the configuration, one sentence per line.
func explainYAMLError(raw []byte, err error) error {
	list := (*yaml.TypeError)(nil)
	if !errors.As(err, &list) {
		return err
	}
	var root yaml.Node
	if yaml.NewDecoder(bytes.NewReader(raw)).Decode(&root) != nil || len(root.Content) == 0 {
		return err
	}
	var all []error
	for _, text := range list.Errors {
		if m := unknownKey.FindStringSubmatch(text); m != nil {
			line, _ := strconv.Atoi(m[1])
			path, known := findKey(root.Content[0], reflect.TypeFor[config](), line, m[2])
			if path == "" {
				path = m[2]
			}
			text = fmt.Sprintf("line %d: %s is no setting", line, path)
			if near := nearest(m[2], known); near != "" {
				text += "; did you mean " + near + "?"
			}
		} else if m := wrongValue.FindStringSubmatch(text); m != nil {
			what := "that"
			if m[2] != "" {
				what = strconv.Quote(m[2])
			}
			text = fmt.Sprintf("line %s: %s is not what belongs there, which is %s", m[1], what, typeWords(m[3]))
		}
		all = append(all, errors.New(text))
	}
	return errors.Join(all...)
}

// typeWords names a Go type in plain words.
func typeWords(kind string) string {
	switch {
	case kind == "time.Duration":
		return "a duration; a duration needs a unit, such as 30m"
	case kind == "bool":
		return "true or false"
	case kind == "int":
		return "a whole number"
	case kind == "string":
		return "a text"
	case strings.HasPrefix(kind, "[]"):
		return "a list, such as [a, b]"
	}
	return "a group of settings, each as key: value"
}

// findKey finds an unknown key: its path, and the keys that are known in its
// place.
func findKey(n *yaml.Node, t reflect.Type, line int, key string) (path string, known []string) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.Kind != yaml.MappingNode || t.Kind() != reflect.Struct && t.Kind() != reflect.Map {
		return "", nil
	}
	fields := map[string]reflect.Type{}
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			fields[name], known = t.Field(i).Type, append(known, name)
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		inner, ok := fields[name.Value]
		if t.Kind() == reflect.Map {
			inner, ok = t.Elem(), true
		}
		switch {
		case !ok && name.Line == line && name.Value == key:
			return key, known
		case !ok:
			continue
		}
		if path, known := findKey(value, inner, line, key); path != "" {
			return name.Value + "." + path, known
		}
	}
	return "", nil
}

// nearest is the known key that was probably meant, or nothing if none is
// similar.
func nearest(key string, known []string) string {
	best, least := "", 1+max(1, len(key)/3)
	for _, k := range known {
		if d := distance(strings.ToLower(key), k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the edit distance of a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before, row[j+1] = row[j+1], min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
