package injectors

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

const (
	mtailProgramsPath = "/etc/pillion/mtail"
	// mtailLogsPath is where mtail sees the directory of the logs, wherever the app has it.
	mtailLogsPath = "/logs"
	// maxMtailErrors is how many problems of one program are reported: most follow from the first.
	maxMtailErrors = 5
)

func addMtail(request Request, fragment *weave.Fragment) {
	spec := request.Pattern.PrometheusAdapter
	logs := emptyDir(v1alpha1.ReservedName(request.Profile, "logs"), spec.Logs.SizeLimit.DeepCopy())
	fragment.Volumes = append(fragment.Volumes, logs)
	fragment.Additions = append(fragment.Additions, weave.Addition{
		Containers:   spec.Containers,
		VolumeMounts: []corev1.VolumeMount{{Name: logs.Name, MountPath: spec.Logs.Directory}},
	})

	container := newExporter(request, request.Images.Mtail, resources{
		cpuRequest: "10m", cpuLimit: "500m", memoryRequest: "48Mi", memoryLimit: "128Mi",
	})
	container.Args = []string{
		"--progs=" + mtailProgramsPath,
		"--port=" + strconv.Itoa(int(metricsPort(spec))),
		"--logtostderr",
	}
	for _, glob := range spec.Logs.Files {
		container.Args = append(container.Args, "--logs="+mtailLogsPath+"/"+glob)
	}
	container.VolumeMounts = append(container.VolumeMounts,
		addConfig(fragment, mtailProgramsPath, mtailPrograms(spec.Logs.Programs)...),
		corev1.VolumeMount{Name: logs.Name, MountPath: mtailLogsPath, ReadOnly: true},
	)
	addExporter(request, fragment, container)
}

// mtailPrograms returns the files of the programs. Their annotations are numbered, for a key has no room for two names.
func mtailPrograms(programs []v1alpha1.LogProgram) (files []configFile) {
	for i, program := range programs {
		file := configFile{path: program.Name + ".mtail", content: mtailText(program)}
		if i > 0 {
			file.key = strconv.Itoa(i + 1)
		}
		files = append(files, file)
	}
	return files
}

// mtailText is the program with an end to its last line, which mtail wants and a YAML block may lack.
func mtailText(program v1alpha1.LogProgram) string {
	return strings.TrimSuffix(program.Program, "\n") + "\n"
}

func validateLogsSource(source *v1alpha1.LogsSource, at *field.Path) (errs field.ErrorList) {
	for i, glob := range source.Files {
		if _, err := path.Match(glob, ""); err != nil {
			errs = append(errs, field.Invalid(at.Child("files").Index(i), glob, "is no glob such as access-*.log: "+err.Error()))
		}
	}
	for i, program := range source.Programs {
		problems := checkMtail(mtailText(program))
		for _, problem := range problems[:min(len(problems), maxMtailErrors)] {
			errs = append(errs, field.Invalid(at.Child("programs").Index(i).Child("program"), program.Name,
				fmt.Sprintf("%s.mtail, %s", program.Name, problem)))
		}
	}
	return errs
}
