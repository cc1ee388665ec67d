package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

const (
	variablePrefix = "PILLION_"

	// fileFlag and fileVariable name the file.
	fileFlag     = "config"
	fileVariable = variablePrefix + "CONFIG"

	// maxFileBytes is more than any configuration takes, and what a ConfigMap may hold.
	maxFileBytes = 1 << 20
)

// AddFlags adds the flags of the groups, and --config, which names the file.
func AddFlags(flags *pflag.FlagSet, groups ...Group) {
	flags.Var(&flagValue{kind: "file"}, fileFlag, "YAML file with the configuration; variable "+fileVariable)
	for _, key := range keys() {
		if !key.isOf(groups) {
			continue
		}
		flag := flags.VarPF(&flagValue{kind: key.kind(), text: key.text()}, key.flag(), "", key.usage)
		if key.kind() == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
}

// flagValue takes any text: Load says what is wrong with it, together with all else that is wrong.
type flagValue struct {
	kind, text string
	given      bool
}

// String returns what was given, or the default.
func (v *flagValue) String() string { return v.text }

// Type says what is expected, in the command's help.
func (v *flagValue) Type() string { return v.kind }

// Set keeps the last of several values; those of a list add up.
func (v *flagValue) Set(text string) error {
	if v.given && v.kind == "list" {
		text = v.text + "," + text
	}
	v.text, v.given = text, true
	return nil
}

// Load returns the configuration from the defaults, the file that --config or PILLION_CONFIG names, the environment (as
// os.Environ has it) and the flags that were given, each overriding the ones before. Its error is an *Error with all problems.
func Load(flags *pflag.FlagSet, environ []string) (Config, error) {
	path, problem := filePath(flags, environ)
	if problem != nil || path == "" {
		return load(flags, environ, path, nil, problem)
	}
	content, err := readFile(path)
	if err != nil {
		problem = &Problem{Source: path, Message: err.Error()}
	}
	return load(flags, environ, path, content, problem)
}

// filePath returns the path of the file, or "" where none is named.
func filePath(flags *pflag.FlagSet, environ []string) (string, *Problem) {
	if flags != nil && flags.Changed(fileFlag) {
		path := flags.Lookup(fileFlag).Value.String()
		if path == "" {
			return "", &Problem{Source: "--" + fileFlag, Message: "is empty; name a file, or leave it out"}
		}
		return path, nil
	}
	for _, entry := range environ {
		if path, ok := strings.CutPrefix(entry, fileVariable+"="); ok {
			return path, nil // empty: variables() complains
		}
	}
	return "", nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer func() { _ = file.Close() }() // it was only read
	content, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if len(content) > maxFileBytes {
		return nil, fmt.Errorf("is larger than %d bytes", maxFileBytes)
	}
	return content, nil
}

// withoutPath drops the path from an error that is told with it.
func withoutPath(err error) error {
	if pathError := (*os.PathError)(nil); errors.As(err, &pathError) {
		return fmt.Errorf("%s: %w", pathError.Op, pathError.Err)
	}
	return err
}

// setting is a value and where it stands.
type setting struct {
	key    key
	value  any
	source string
}

// load is Load once the file has been read. content is not looked at where problem says that it could not be.
func load(flags *pflag.FlagSet, environ []string, path string, content []byte, problem *Problem) (Config, error) {
	found := &findings{}
	var fromFile []setting
	if problem != nil {
		found.problems = append(found.problems, *problem)
	} else if path != "" {
		fromFile = found.file(path, content)
	}
	fromEnvironment := found.variables(environ)
	fromFlags := found.flags(flags)

	config, err := merge(fromFile, fromEnvironment, fromFlags)
	if err != nil {
		return Config{}, fmt.Errorf("merge the configuration: %w", err)
	}
	settings := slices.Concat(fromFile, fromEnvironment, fromFlags)
	config.settle(settings)
	found.conflicts(config, settings)
	if len(found.problems) > 0 {
		return Config{}, asError(found.problems)
	}
	return config, nil
}

// merge lays the settings over the defaults.
func merge(fromFile, fromEnvironment, fromFlags []setting) (Config, error) {
	v := viper.New()
	for _, key := range keys() {
		v.SetDefault(key.path, key.value)
	}
	// viper would read the process's environment itself; a second layer of configuration is the same to it.
	for _, layer := range [][]setting{fromFile, fromEnvironment} {
		for _, setting := range layer {
			if err := v.MergeConfigMap(nested(setting.key.path, setting.value)); err != nil {
				return Config{}, err
			}
		}
	}
	for _, setting := range fromFlags {
		v.Set(setting.key.path, setting.value)
	}
	var config Config
	err := v.UnmarshalExact(&config)
	return config, err
}

func nested(path string, value any) map[string]any {
	first, rest, ok := strings.Cut(path, ".")
	if !ok {
		return map[string]any{path: value}
	}
	return map[string]any{first: nested(rest, value)}
}

// settle derives what follows from other values.
func (c *Config) settle(settings []setting) {
	if !slices.Contains(c.ExcludedNamespaces, c.Namespace) {
		c.ExcludedNamespaces = append(slices.Clone(c.ExcludedNamespaces), c.Namespace)
	}
	given := slices.ContainsFunc(settings, func(s setting) bool { return s.key.path == "controller.service" })
	if c.Controller.WebhookURL != "" && !given {
		c.Controller.Service = Service{}
	}
}

// findings collects problems while the sources are read.
type findings struct {
	problems []Problem
}

func (f *findings) add(source, key, format string, args ...any) {
	f.problems = append(f.problems, Problem{Source: source, Key: key, Message: fmt.Sprintf(format, args...)})
}

// accept returns a setting unless its value is wrong.
func (f *findings) accept(key key, value any, err error, source string) []setting {
	if err == nil {
		err = key.validate(value)
	}
	if err != nil {
		f.add(source, key.path, "%v", err)
		return nil
	}
	return []setting{{key: key, value: value, source: source}}
}

// conflicts adds what is wrong with several keys together, unless one of them is wrong by itself.
func (f *findings) conflicts(config Config, settings []setting) {
	wrong := func(path string) bool {
		return slices.ContainsFunc(f.problems, func(p Problem) bool { return p.Key == path })
	}
	for _, conflict := range config.conflicts() {
		if slices.ContainsFunc(conflict.keys, wrong) {
			continue
		}
		f.add(sourceOf(conflict.keys[0], settings), conflict.keys[0], "%s", conflict.message)
	}
}

// sourceOf returns where the value of a key stands: the last one counts.
func sourceOf(path string, settings []setting) string {
	for _, setting := range slices.Backward(settings) {
		if setting.key.path == path {
			return setting.source
		}
	}
	return "default"
}

// variables reads the environment.
func (f *findings) variables(environ []string) []setting {
	byVariable := map[string]key{}
	for _, key := range keys() {
		byVariable[key.variable()] = key
	}
	var settings []setting
	seen := map[string]bool{}
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		key, known := byVariable[name]
		switch {
		case !strings.HasPrefix(name, variablePrefix):
		case seen[name]:
			f.add(name, key.path, "is set twice")
		case known && text != "":
			value, err := parse(key, text)
			settings = append(settings, f.accept(key, value, err, name)...)
		case known || name == fileVariable && text == "":
			f.add(name, key.path, "is empty; give it a value, or unset it")
		case name == fileVariable || isServiceLink(name):
		default:
			f.add(name, "", "unknown variable%s", suggestion(name[len(variablePrefix):], spellVariable))
		}
		seen[name] = true
	}
	return settings
}

// isServiceLink tells whether the kubelet may have set a variable because a Service of Pillion's namespace is called pillion or
// pillion-something. No key may have a variable of this form.
func isServiceLink(name string) bool {
	return regexp.MustCompile(`(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT|_PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)$`).
		MatchString(name)
}

// flags reads the flags that were given.
func (f *findings) flags(flags *pflag.FlagSet) []setting {
	if flags == nil {
		return nil
	}
	var settings []setting
	for _, key := range keys() {
		if !flags.Changed(key.flag()) {
			continue
		}
		source := "--" + key.flag()
		text := flags.Lookup(key.flag()).Value.String()
		if text == "" {
			f.add(source, key.path, "is empty; give it a value, or leave it out")
			continue
		}
		value, err := parse(key, text)
		settings = append(settings, f.accept(key, value, err, source)...)
	}
	return settings
}

// parse returns the value that the text of a variable or flag says.
func parse(key key, text string) (any, error) {
	switch key.value.(type) {
	case bool:
		return parseBool(text)
	case int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", text)
		}
		return n, nil
	case time.Duration:
		if key.off != "" && text == key.off {
			return time.Duration(0), nil
		}
		return parseDuration(text)
	case []string:
		list := strings.Split(text, ",")
		if slices.Contains(list, "") {
			return nil, fmt.Errorf("%q has an empty item; separate the items by one comma each", text)
		}
		return list, nil
	case Service:
		return parseService(text)
	default:
		if key.off != "" && text == key.off {
			return "", nil
		}
		return text, nil
	}
}

func parseBool(text string) (bool, error) {
	if text != "true" && text != "false" {
		return false, fmt.Errorf("%q is neither true nor false", text)
	}
	return text == "true", nil
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration, for example 500ms, 10s or 1h30m", text)
	}
	return d, nil
}

// suggestion names the key that was meant, where it differs in case and separators only, as its source spells it.
func suggestion(name string, spell func(key) string) string {
	for _, key := range keys() {
		if bare(key.path) == bare(name) {
			return ", did you mean " + spell(key) + "?"
		}
		if section, _, ok := strings.Cut(key.path, "."); ok && bare(section) == bare(name) {
			return ", did you mean " + section + "?"
		}
	}
	return ""
}

func bare(name string) string {
	return strings.ToLower(strings.NewReplacer(".", "", "-", "", "_", "").Replace(name))
}
