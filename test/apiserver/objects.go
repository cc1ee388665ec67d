package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// FieldManager owns the fields of what is applied here.
const FieldManager = "pillion-test"

// CreateNamespace creates a namespace with a generated name and a default ServiceAccount, and returns its name.
func (s *Server) CreateNamespace(ctx context.Context, labels map[string]string) (string, error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Labels: labels}}
	if err := s.Client.Create(ctx, namespace); err != nil {
		return "", fmt.Errorf("create a namespace: %w", err)
	}
	return namespace.Name, s.createDefaultServiceAccount(ctx, namespace.Name)
}

// createDefaultServiceAccount does what the controller manager does in every namespace; without it no Pod is admitted there.
func (s *Server) createDefaultServiceAccount(ctx context.Context, namespace string) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "default"}}
	if err := s.Client.Create(ctx, account); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create ServiceAccount %s/default: %w", namespace, err)
	}
	return nil
}

// ServiceAccountConfig returns the configuration of a ServiceAccount with a token of its own from the TokenRequest API, good for
// an hour: its requests are authenticated and authorized as in a cluster.
func (s *Server) ServiceAccountConfig(ctx context.Context, namespace, name string) (*rest.Config, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: new(int64(time.Hour / time.Second)),
	}}
	token, err := s.Clientset.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("request a token of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	config := rest.AnonymousClientConfig(s.Config)
	config.BearerToken = token.Status.Token
	return config, nil
}

// WriteKubeconfig writes a kubeconfig file for a configuration, for processes of their own.
func WriteKubeconfig(config *rest.Config, path string) error {
	const name = "test"
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {
			Server: config.Host, CertificateAuthorityData: config.CAData,
		}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{name: {
			Token: config.BearerToken, ClientCertificateData: config.CertData, ClientKeyData: config.KeyData,
		}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, path)
	if err != nil {
		return fmt.Errorf("write a kubeconfig: %w", err)
	}
	return nil
}

// InstallDeploy applies what deploy/ says of an installation but for its workloads: the namespaces, the permissions, the policy that
// keeps Pods out of the self-check's and the webhook configuration, which is empty. Namespaces get their default ServiceAccount.
func (s *Server) InstallDeploy(ctx context.Context) error {
	root, err := Root()
	if err != nil {
		return err
	}
	for _, name := range []string{"namespace.yaml", "rbac.yaml", "selfcheck.yaml", "webhookconfiguration.yaml"} {
		if err := s.ApplyFile(ctx, filepath.Join(root, "deploy", name)); err != nil {
			return err
		}
	}
	return nil
}

// ApplyFile applies the objects of a YAML file, with server-side apply.
func (s *Server) ApplyFile(ctx context.Context, path string) error {
	objects, err := ReadFile(path)
	if err != nil {
		return err
	}
	for _, object := range objects {
		if err := s.Apply(ctx, object); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
	}
	return nil
}

// Apply applies an object, with server-side apply. A namespace gets its default ServiceAccount.
func (s *Server) Apply(ctx context.Context, object *unstructured.Unstructured) error {
	configuration := client.ApplyConfigurationFromUnstructured(object)
	if err := s.Client.Apply(ctx, configuration, client.FieldOwner(FieldManager), client.ForceOwnership); err != nil {
		return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	if object.GetKind() == "Namespace" && object.GetAPIVersion() == "v1" {
		return s.createDefaultServiceAccount(ctx, object.GetName())
	}
	return nil
}

// ReadFile returns the objects of a YAML file in their order.
func ReadFile(path string) ([]*unstructured.Unstructured, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read objects: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	objects, err := Read(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return objects, nil
}

// Read returns the objects of YAML documents in their order.
func Read(documents io.Reader) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(documents, 4096)
	var objects []*unstructured.Unstructured
	for {
		content := map[string]any{}
		err := decoder.Decode(&content)
		switch {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, fmt.Errorf("decode an object: %w", err)
		case len(content) > 0: // not only a comment
			objects = append(objects, &unstructured.Unstructured{Object: content})
		}
	}
}

// Await calls condition until it is true, for a minute at most. What condition last said is in the error: return the reason
// why it is not true yet as an error beside false.
func Await(ctx context.Context, condition func(context.Context) (bool, error)) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		done, reason := condition(ctx)
		if reason != nil {
			last = reason
		}
		return done, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}
