package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// spdxMediaType is what registries and tools know an SPDX document in JSON by.
const spdxMediaType = "application/spdx+json"

// noAssertion is SPDX for: this document does not say.
const noAssertion = "NOASSERTION"

// component is a piece of software in an image.
type component struct {
	name, version string
	purl          string
	supplier      string
	licenses      string
	sha256        string // of the package that it came in
}

func (p *debianPackage) component() component {
	// A binary package and its source may differ in version; scanners want to know both.
	purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=%s", url.PathEscape(p.name), url.QueryEscape(p.version),
		p.field("Architecture"), debianRelease)
	if source := p.field("Source"); source != "" {
		name, version, _ := strings.Cut(source, " ")
		version = strings.Trim(version, "()")
		if version == "" {
			version = p.version
		}
		purl += "&upstream=" + url.QueryEscape(name+"@"+version)
	}
	supplier, _, _ := strings.Cut(p.field("Maintainer"), " <")
	return component{name: p.name, version: p.version, purl: purl, supplier: "Organization: " + supplier, sha256: p.sha256}
}

// The parts of an SPDX 2.3 document that we write: https://spdx.github.io/spdx-spec/v2.3/.
type (
	spdxDocument struct {
		Version           string             `json:"spdxVersion"`
		DataLicense       string             `json:"dataLicense"`
		ID                string             `json:"SPDXID"`
		Name              string             `json:"name"`
		DocumentNamespace string             `json:"documentNamespace"`
		CreationInfo      spdxCreation       `json:"creationInfo"`
		Describes         []string           `json:"documentDescribes"`
		Packages          []spdxPackage      `json:"packages"`
		Relationships     []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID               string          `json:"SPDXID"`
		Name             string          `json:"name"`
		VersionInfo      string          `json:"versionInfo,omitempty"`
		Supplier         string          `json:"supplier,omitempty"`
		DownloadLocation string          `json:"downloadLocation"`
		FilesAnalyzed    bool            `json:"filesAnalyzed"`
		Checksums        []spdxChecksum  `json:"checksums,omitempty"`
		LicenseConcluded string          `json:"licenseConcluded"`
		LicenseDeclared  string          `json:"licenseDeclared"`
		CopyrightText    string          `json:"copyrightText"`
		ExternalRefs     []spdxReference `json:"externalRefs,omitempty"`
		Purpose          string          `json:"primaryPackagePurpose,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxReference struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)

// sbom returns the bill of materials of the image of one platform. It names the image by its digest, so that it cannot be
// taken for that of another.
func (i *image) sbom(platform v1.Platform, digest v1.Hash, components []component) ([]byte, error) {
	const root = "SPDXRef-image"
	repository := i.ref[:strings.LastIndex(i.ref, ":")]
	document := spdxDocument{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: "SPDXRef-DOCUMENT",
		Name:              fmt.Sprintf("%s-%s-%s-%s", i.name, i.version, platform.OS, platform.Architecture),
		DocumentNamespace: fmt.Sprintf("%s/spdx/%s/%s", source, i.name, digest.Hex),
		CreationInfo: spdxCreation{
			Created:  i.created.Format(time.RFC3339),
			Creators: []string{"Organization: Pillion", "Tool: " + strings.TrimPrefix(source, "https://") + "/images/build"},
		},
		Describes: []string{root},
		Packages: []spdxPackage{i.spdxPackage(root, component{
			name: repository, version: i.version, licenses: i.licenses, sha256: digest.Hex,
			purl: fmt.Sprintf("pkg:oci/%s@%s?arch=%s&repository_url=%s", i.name, url.QueryEscape(digest.String()),
				platform.Architecture, url.QueryEscape(repository)),
		}, "CONTAINER")},
		Relationships: []spdxRelationship{{Element: "SPDXRef-DOCUMENT", Type: "DESCRIBES", Related: root}},
	}
	components = slices.Clone(components)
	slices.SortFunc(components, func(a, b component) int { return strings.Compare(a.purl, b.purl) })
	components = slices.CompactFunc(components, func(a, b component) bool { return a.purl == b.purl })
	for n, c := range components {
		id := fmt.Sprintf("SPDXRef-package-%d", n+1)
		document.Packages = append(document.Packages, i.spdxPackage(id, c, ""))
		document.Relationships = append(document.Relationships, spdxRelationship{Element: root, Type: "CONTAINS", Related: id})
	}
	content, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the bill of materials: %w", err)
	}
	return append(content, '\n'), nil
}

func (i *image) spdxPackage(id string, c component, purpose string) spdxPackage {
	p := spdxPackage{
		ID: id, Name: c.name, VersionInfo: c.version, Supplier: c.supplier, DownloadLocation: noAssertion,
		LicenseConcluded: noAssertion, LicenseDeclared: c.licenses, CopyrightText: noAssertion, Purpose: purpose,
		ExternalRefs: []spdxReference{{Category: "PACKAGE-MANAGER", Type: "purl", Locator: c.purl}},
	}
	if p.LicenseDeclared == "" {
		p.LicenseDeclared = noAssertion
	}
	if c.sha256 != "" {
		p.Checksums = []spdxChecksum{{Algorithm: "SHA256", Value: c.sha256}}
	}
	return p
}
