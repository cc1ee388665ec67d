package cases

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/pflag"

	"github.com/pillion-dev/pillion/config"
)

const settingsExample = "{podSecurity: {mode: Warn}}"

// settings returns the configuration that decisions depend on: what is given, then what the document says, then what the case
// says. It is nil, and problems noted, if something is wrong with it.
func (l *loader) settings(documents, cases *value) *config.Config {
	flags := pflag.NewFlagSet("configuration", pflag.ContinueOnError)
	config.AddFlags(flags, config.Decisions)
	if l.options.Flags != nil {
		l.options.Flags.VisitAll(func(given *pflag.Flag) { // Visit knows only what its own set has parsed
			if flag := flags.Lookup(given.Name); flag != nil && given.Changed {
				_ = flags.Set(flag.Name, given.Value.String()) // it takes any text
			}
		})
	}
	set := map[string]value{}
	before := 0
	for _, layer := range []*value{documents, cases} {
		if layer != nil {
			before += len(layer.in.problems)
			layer.settings(flags, "", set)
			before -= len(layer.in.problems)
		}
	}
	for name, v := range set {
		fresh := pflag.NewFlagSet("configuration", pflag.ContinueOnError)
		config.AddFlags(fresh, config.Decisions)
		flag := flags.Lookup(name)
		flag.Value = fresh.Lookup(name).Value // or those of a list would add up
		_ = flags.Set(name, v.content.(string))
	}
	if before != 0 {
		return nil
	}
	loaded, err := config.Load(flags, l.options.Environ)
	if err == nil {
		return &loaded
	}
	l.settingProblems(err, set, documents, cases)
	return nil
}

// settingProblems notes what package config says, where it stands.
func (l *loader) settingProblems(err error, set map[string]value, documents, cases *value) {
	otherwise := cases
	if otherwise == nil {
		otherwise = documents
	}
	wrong := (*config.Error)(nil)
	if !errors.As(err, &wrong) {
		otherwise.problem("%v", err)
		return
	}
	for _, problem := range wrong.Problems {
		at, ok := set[strings.TrimPrefix(problem.Source, "--")]
		if ok {
			at.problem("%s", problem.Message)
			continue
		}
		otherwise.problem("%s", problem)
	}
}

// settings finds the values of the keys below a path, which is empty for all, by the names of their flags.
func (v value) settings(flags *pflag.FlagSet, path string, set map[string]value) {
	content, ok := v.mapping(settingsExample)
	if !ok {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(content)) {
		child, name := v.under(key, content[key]), flagOf(key)
		if path != "" {
			name = path + "-" + name
		}
		flag := flags.Lookup(name)
		switch {
		case name == "config" || strings.ContainsAny(key, ".-"):
			child.problem("this setting is unknown; docs/configuration.md lists them")
		case flag != nil:
			if text, ok := child.setting(flag); ok {
				child.content = text
				set[name] = child
			}
		case isSection(flags, name):
			child.settings(flags, name, set)
		default:
			child.problem("this setting is unknown, or no decision depends on it; docs/configuration.md lists those for every command")
		}
	}
}

func isSection(flags *pflag.FlagSet, name string) (is bool) {
	flags.VisitAll(func(flag *pflag.Flag) { is = is || strings.HasPrefix(flag.Name, name+"-") })
	return is
}

// flagOf returns the flag of a key of the configuration file: enforceVersion is enforce-version.
func flagOf(key string) string {
	var flag strings.Builder
	for _, letter := range key {
		if unicode.IsUpper(letter) {
			flag.WriteByte('-')
		}
		flag.WriteRune(unicode.ToLower(letter))
	}
	return flag.String()
}

// setting returns a value as its flag has it.
func (v value) setting(flag *pflag.Flag) (text string, ok bool) {
	if flag.Value.Type() != "list" {
		return v.text()
	}
	before := len(v.in.problems)
	items := v.texts("[first, second]")
	if len(items) == 0 && before == len(v.in.problems) {
		v.problem("there is nothing in it; write what is different, or leave it out")
	}
	for _, item := range items {
		if strings.Contains(item, ",") {
			v.problem("%q holds a comma; write an item for each", item)
		}
	}
	return strings.Join(items, ","), before == len(v.in.problems)
}
