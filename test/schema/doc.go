// Package schema holds the CustomResourceDefinitions to a real API server and to what Pillion itself makes of a profile in
// process: testdata has the cases, a file for each pattern.
package schema
