package profiles

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// canonicalJSON returns the field of a pattern as JSON that is the same however a manifest writes its values: 120s as 2m0s, and 1024Mi as
// 1Gi. So a revision is the same in a file, in the API server and after an override that says what was said before.
func canonicalJSON(field string, pattern *v1alpha1.Pattern) []byte {
	encoded, _ := json.Marshal(pattern) // it was decoded from JSON
	fields := map[string]any{}
	_ = utiljson.Unmarshal(encoded, &fields)
	canonical, _ := json.Marshal(fields[field])
	return canonical
}

// revision is a hash of an effective spec, short enough to be read and compared by people.
func revision(field string, document []byte) string {
	sum := sha256.Sum256(slices.Concat([]byte(field), []byte{0}, document))
	return hex.EncodeToString(sum[:5])
}
