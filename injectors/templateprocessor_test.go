package injectors

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

// appConfig returns a spec as the schema defaults it, with the templates of a ConfigMap.
func appConfig(edits ...func(*v1alpha1.TemplateProcessor)) *v1alpha1.TemplateProcessor {
	spec := &v1alpha1.TemplateProcessor{
		Templates: v1alpha1.TemplateSource{ConfigMap: &v1alpha1.TemplateConfigMap{Name: "app-templates"}},
		Suffix:    ".tmpl",
		MountPath: "/etc/app",
		ReadOnly:  new(true),
		FileMode:  "0644",
		SizeLimit: new(resource.MustParse("16Mi")),
	}
	for _, edit := range edits {
		edit(spec)
	}
	return spec
}

func templateRequest(spec *v1alpha1.TemplateProcessor) Request {
	return Request{
		Profile: "app-config",
		Pattern: &v1alpha1.Pattern{TemplateProcessor: spec},
		Applied: map[string]*v1alpha1.Pattern{
			"site-content": {GitSync: siteContent(func(spec *v1alpha1.GitSync) { spec.Link = "live" })},
			"page-cache":   {CacheAmbassador: &v1alpha1.CacheAmbassador{}},
		},
		Images: DefaultImages(""),
	}
}

// templateProblems says what keeps the pattern from a Pod with one volume.
func templateProblems(spec *v1alpha1.TemplateProcessor) []Problem {
	return templateProcessorInjector().Problems(templateRequest(spec), &corev1.Pod{
		Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "data"}}},
	})
}

func templateFragmentOf(t *testing.T, spec *v1alpha1.TemplateProcessor) (weave.Fragment, corev1.Container) {
	t.Helper()
	fragment := templateProcessorInjector().Fragment(templateRequest(spec))
	if problems := templateProblems(spec); len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	if len(fragment.InitContainers) != 1 {
		t.Fatalf("%d init containers, want 1", len(fragment.InitContainers))
	}
	return fragment, fragment.InitContainers[0]
}

func TestTemplateProcessorIsAnInitContainer(t *testing.T) {
	got, _ := templateFragmentOf(t, appConfig(func(spec *v1alpha1.TemplateProcessor) {
		spec.Containers = []string{"web"}
		spec.Parameters = []v1alpha1.TemplateParameter{
			{Name: "app", ConfigMap: &v1alpha1.TemplateKey{Name: "app-prod", Key: "app.yaml"}},
			{Name: "site", Values: map[string]v1alpha1.TemplateValue{"name": "shop", "motto": "\"$(HOME)\"\n-x {{ .a }}"}},
		}
	}))
	want := weave.Fragment{
		Profile: "app-config",
		InitContainers: []corev1.Container{{
			Name:  "pillion-app-config",
			Image: "docker.io/hairyhenderson/gomplate:v4.3.3",
			Args: []string{
				"--input-dir=/templates",
				"--exclude=..*",
				"--exclude=.git",
				`--output-map=/out/{{ .in | strings.TrimSuffix ".tmpl" }}`,
				"--context=app=file:///parameters/app/configmap/app-prod/app.yaml?type=application/yaml",
				"--context=site=file:///values/site.json?type=application/json",
				"--chmod=0644",
			},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("10m"), "memory": resource.MustParse("64Mi")},
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("128Mi")},
			},
			VolumeMounts: []corev1.VolumeMount{
				{Name: "pillion-app-config-templates", MountPath: "/templates", ReadOnly: true},
				{Name: "pillion-app-config-parameters", MountPath: "/parameters", ReadOnly: true},
				{Name: "pillion-app-config-config", MountPath: "/values", ReadOnly: true},
				{Name: "pillion-app-config", MountPath: "/out"},
			},
		}},
		Volumes: []corev1.Volume{
			{
				Name: "pillion-app-config-templates",
				VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: "app-templates"},
				}},
			},
			{
				Name: "pillion-app-config-parameters",
				VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
					DefaultMode: new(int32(0o444)),
					Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{
						LocalObjectReference: corev1.LocalObjectReference{Name: "app-prod"},
						Items:                []corev1.KeyToPath{{Key: "app.yaml", Path: "app/configmap/app-prod/app.yaml"}},
						Optional:             new(true),
					}}},
				}},
			},
			{
				Name: "pillion-app-config-config",
				VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
					Items: []corev1.DownwardAPIVolumeFile{{
						Path:     "site.json",
						FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['pillion.dev/config.app-config.1']"},
					}},
				}},
			},
			emptyDir("pillion-app-config", resource.MustParse("16Mi")),
		},
		Additions: []weave.Addition{{
			Containers:   []string{"web"},
			VolumeMounts: []corev1.VolumeMount{{Name: "pillion-app-config", MountPath: "/etc/app", ReadOnly: true}},
		}},
		Annotations: map[string]string{
			"pillion.dev/config.app-config.1": `{"motto":"\"$(HOME)\"\n-x {{ .a }}","name":"shop"}`,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fragment (-want +got):\n%s", diff)
	}
}

func TestTemplateSources(t *testing.T) {
	tests := map[string]struct {
		templates  v1alpha1.TemplateSource
		wantArgs   []string
		wantVolume string // mounted at /templates; empty: none
	}{
		"some keys of a ConfigMap, each by name": {
			templates: v1alpha1.TemplateSource{ConfigMap: &v1alpha1.TemplateConfigMap{
				Name: "app-templates", Keys: []string{"app.conf.tmpl", "plain"},
			}},
			wantArgs: []string{
				"--file=/templates/app-templates/app.conf.tmpl", "--out=/out/app.conf",
				"--file=/templates/app-templates/plain", "--out=/out/plain",
				"--chmod=0644",
			},
			wantVolume: "pillion-app-config-templates",
		},
		"a directory of a volume of the Pod": {
			templates: v1alpha1.TemplateSource{Volume: &v1alpha1.TemplateVolume{Name: "data", Path: "conf/$(HOME)"}},
			wantArgs: []string{
				"--input-dir=/templates/conf/$$(HOME)", "--exclude=..*", "--exclude=.git",
				`--output-map=/out/{{ .in | strings.TrimSuffix ".tmpl" }}`, "--chmod=0644",
			},
			wantVolume: "data",
		},
		"the root of a checkout": {
			templates: v1alpha1.TemplateSource{GitSync: &v1alpha1.TemplateGitSync{Profile: "site-content"}},
			wantArgs: []string{
				"--input-dir=/templates/live", "--exclude=..*", "--exclude=.git",
				`--output-map=/out/{{ .in | strings.TrimSuffix ".tmpl" }}`, "--chmod=0644",
			},
			wantVolume: "pillion-site-content",
		},
		"a directory of a checkout": {
			templates: v1alpha1.TemplateSource{GitSync: &v1alpha1.TemplateGitSync{Profile: "site-content", Path: "conf/app"}},
			wantArgs: []string{
				"--input-dir=/templates/live/conf/app", "--exclude=..*", "--exclude=.git",
				`--output-map=/out/{{ .in | strings.TrimSuffix ".tmpl" }}`, "--chmod=0644",
			},
			wantVolume: "pillion-site-content",
		},
		"a directory of the image": {
			templates: v1alpha1.TemplateSource{Image: &v1alpha1.TemplateImage{Path: "/usr/share/templates"}},
			wantArgs: []string{
				"--input-dir=/usr/share/templates", "--exclude=..*", "--exclude=.git",
				`--output-map=/out/{{ .in | strings.TrimSuffix ".tmpl" }}`, "--chmod=0644",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, container := templateFragmentOf(t, appConfig(func(spec *v1alpha1.TemplateProcessor) { spec.Templates = test.templates }))
			if diff := cmp.Diff(test.wantArgs, container.Args); diff != "" {
				t.Errorf("args (-want +got):\n%s", diff)
			}
			var want []corev1.VolumeMount
			if test.wantVolume != "" {
				want = append(want, corev1.VolumeMount{Name: test.wantVolume, MountPath: "/templates", ReadOnly: true})
			}
			want = append(want, corev1.VolumeMount{Name: "pillion-app-config", MountPath: "/out"})
			if diff := cmp.Diff(want, container.VolumeMounts); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnlyTemplatesWhoseKeysAreKnownAreOptional(t *testing.T) {
	fragment, _ := templateFragmentOf(t, appConfig())
	if optional := fragment.Volumes[0].ConfigMap.Optional; optional != nil {
		t.Error("without keys the volume is optional: gomplate would render nothing and the app start")
	}
	fragment, _ = templateFragmentOf(t, appConfig(func(spec *v1alpha1.TemplateProcessor) {
		spec.Templates.ConfigMap.Keys = []string{"a"}
	}))
	want := &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "app-templates"},
		Items:                []corev1.KeyToPath{{Key: "a", Path: "app-templates/a"}},
		Optional:             new(true),
	}
	if diff := cmp.Diff(want, fragment.Volumes[0].ConfigMap); diff != "" {
		t.Errorf("templates with keys (-want +got):\n%s", diff)
	}
}

func TestTemplatesThatThePodDoesNotHaveAreAProblem(t *testing.T) {
	tests := map[string]struct {
		templates   v1alpha1.TemplateSource
		wantReason  string
		wantMessage string
	}{
		"a volume that the Pod does not have": {
			templates:   v1alpha1.TemplateSource{Volume: &v1alpha1.TemplateVolume{Name: "nosuch"}},
			wantReason:  "VolumeNotFound",
			wantMessage: `the volume "nosuch"`,
		},
		"a profile that the Pod does not get": {
			templates:   v1alpha1.TemplateSource{GitSync: &v1alpha1.TemplateGitSync{Profile: "nosuch"}},
			wantReason:  "SourceNotApplied",
			wantMessage: `the profile "nosuch"`,
		},
		"a profile of another pattern": {
			templates:   v1alpha1.TemplateSource{GitSync: &v1alpha1.TemplateGitSync{Profile: "page-cache"}},
			wantReason:  "SourceNotApplied",
			wantMessage: `the profile "page-cache"`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := appConfig(func(spec *v1alpha1.TemplateProcessor) { spec.Templates = test.templates })
			fragment, problems := templateProcessorInjector().Fragment(templateRequest(spec)), templateProblems(spec)
			if len(fragment.Additions) != 1 {
				t.Errorf("the fragment has %d additions, want that of the output, whose collisions are told beside the problem",
					len(fragment.Additions))
			}
			if len(problems) != 1 || string(problems[0].Reason) != test.wantReason ||
				!strings.Contains(problems[0].Message, test.wantMessage) {
				t.Errorf("problems %v, want one with reason %s that says %s", problems, test.wantReason, test.wantMessage)
			}
		})
	}
}

func TestTemplateProcessorComesAfterTheProfileThatItReads(t *testing.T) {
	sources := func(templates v1alpha1.TemplateSource) []string {
		return templateProcessorInjector().Sources(&v1alpha1.Pattern{
			TemplateProcessor: appConfig(func(spec *v1alpha1.TemplateProcessor) { spec.Templates = templates }),
		})
	}
	if diff := cmp.Diff([]string{"site-content"}, sources(v1alpha1.TemplateSource{
		GitSync: &v1alpha1.TemplateGitSync{Profile: "site-content"},
	})); diff != "" {
		t.Errorf("sources of a checkout (-want +got):\n%s", diff)
	}
	if got := sources(v1alpha1.TemplateSource{ConfigMap: &v1alpha1.TemplateConfigMap{Name: "a"}}); got != nil {
		t.Errorf("sources of a ConfigMap %v, want none", got)
	}
}

func TestFilesWithASecretAreKeptInMemory(t *testing.T) {
	fragment, container := templateFragmentOf(t, appConfig(func(spec *v1alpha1.TemplateProcessor) {
		spec.Parameters = []v1alpha1.TemplateParameter{{Name: "db", Secret: &v1alpha1.TemplateKey{Name: "db-login", Key: "password"}}}
	}))
	want := corev1.Volume{Name: "pillion-app-config", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium: corev1.StorageMediumMemory, SizeLimit: new(resource.MustParse("16Mi")),
	}}}
	if diff := cmp.Diff(want, fragment.Volumes[2]); diff != "" {
		t.Errorf("output volume (-want +got):\n%s", diff)
	}
	wantSource := corev1.VolumeProjection{Secret: &corev1.SecretProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: "db-login"},
		Items:                []corev1.KeyToPath{{Key: "password", Path: "db/secret/db-login/password"}},
		Optional:             new(true),
	}}
	if diff := cmp.Diff([]corev1.VolumeProjection{wantSource}, fragment.Volumes[1].Projected.Sources); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
	if want := "--context=db=file:///parameters/db/secret/db-login/password?type=text/plain"; container.Args[4] != want {
		t.Errorf("arg %s, want %s", container.Args[4], want)
	}
}

func TestDelimitersAreThoseOfTheOutputMapToo(t *testing.T) {
	_, container := templateFragmentOf(t, appConfig(func(spec *v1alpha1.TemplateProcessor) {
		spec.Suffix, spec.FileMode = ".gotmpl", "0755"
		spec.Delimiters = &v1alpha1.TemplateDelimiters{Left: "$(", Right: ")"}
	}))
	want := []string{
		"--input-dir=/templates",
		"--exclude=..*",
		"--exclude=.git",
		`--output-map=/out/$$( .in | strings.TrimSuffix ".gotmpl" )`,
		"--left-delim=$$(",
		"--right-delim=)",
		"--chmod=0755",
	}
	if diff := cmp.Diff(want, container.Args); diff != "" {
		t.Errorf("args (-want +got):\n%s", diff)
	}
}

func TestFormatOfAParameter(t *testing.T) {
	tests := map[string]struct {
		key    string
		format v1alpha1.TemplateFormat
		want   string
	}{
		"yaml by the key":           {key: "a.yaml", want: "application/yaml"},
		"yml by the key":            {key: "a.yml", want: "application/yaml"},
		"json by the key":           {key: "a.json", want: "application/json"},
		"toml by the key":           {key: "a.toml", want: "application/toml"},
		"text where the key is mum": {key: "password", want: "text/plain"},
		"format before the key":     {key: "a.yaml", format: v1alpha1.TemplateFormatText, want: "text/plain"},
		"yaml by the format":        {key: "values", format: v1alpha1.TemplateFormatYAML, want: "application/yaml"},
		"json by the format":        {key: "values", format: v1alpha1.TemplateFormatJSON, want: "application/json"},
		"toml by the format":        {key: "values", format: v1alpha1.TemplateFormatTOML, want: "application/toml"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, parameter := range []v1alpha1.TemplateParameter{
				{ConfigMap: &v1alpha1.TemplateKey{Key: test.key}, Format: test.format},
				{Secret: &v1alpha1.TemplateKey{Key: test.key}, Format: test.format},
			} {
				if got := mediaType(&parameter); got != test.want {
					t.Errorf("media type %s, want %s", got, test.want)
				}
			}
		})
	}
}

func TestValidateTemplateProcessor(t *testing.T) {
	large := func(n int) []v1alpha1.TemplateParameter {
		return []v1alpha1.TemplateParameter{{
			Name: "a", Values: map[string]v1alpha1.TemplateValue{"k": v1alpha1.TemplateValue(strings.Repeat("x", n-len(`{"k":""}`)))},
		}}
	}
	tests := map[string]struct {
		edit func(*v1alpha1.TemplateProcessor)
		want []string
	}{
		"different keys and few values are right": {
			edit: func(spec *v1alpha1.TemplateProcessor) {
				spec.Templates.ConfigMap.Keys = []string{"a.tmpl", "b.tmpl", "tmpl"}
				spec.Parameters = large(64 << 10)
			},
		},
		"keys that are rendered to one file": {
			edit: func(spec *v1alpha1.TemplateProcessor) { spec.Templates.ConfigMap.Keys = []string{"a", "b", "a.tmpl"} },
			want: []string{
				`spec.templateProcessor.templates.configMap.keys[2]: Invalid value: "a.tmpl": is rendered to the same file as a: a`,
			},
		},
		"a key that is nothing but the suffix": {
			edit: func(spec *v1alpha1.TemplateProcessor) { spec.Templates.ConfigMap.Keys = []string{".tmpl"} },
			want: []string{`keys[0]: Invalid value: ".tmpl": nothing is left of the name without the suffix .tmpl`},
		},
		"values that do not fit into annotations": {
			edit: func(spec *v1alpha1.TemplateProcessor) { spec.Parameters = large(64<<10 + 1) },
			want: []string{"values may take 64 KiB in all, as JSON: put them into a ConfigMap"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pattern := &v1alpha1.Pattern{TemplateProcessor: appConfig(test.edit)}
			errs := templateProcessorInjector().Validate(pattern, field.NewPath("spec", "templateProcessor"))
			if len(errs) != len(test.want) {
				t.Fatalf("errors %v, want %d", errs, len(test.want))
			}
			for i, want := range test.want {
				if !strings.Contains(errs[i].Error(), want) {
					t.Errorf("error %v, want %q in it", errs[i], want)
				}
			}
		})
	}
}
