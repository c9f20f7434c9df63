// Command istio-translate writes the configuration that Istio's control plane would send to a proxy for some manifests.
// It runs istiod's own code, in one process, without Kubernetes.
//
//	istio-translate OUT router|sidecar NAMESPACE LABEL=VALUE... <manifests.yaml
//
// Manifests are separated by lines of `---`. OUT gets the proxy's configuration in the format of Envoy's /config_dump.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	admin "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/testing"

	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/schema/gvr"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/kube/kclient/clienttest"
	"istio.io/istio/pkg/test"
)

// The time for objects to be derived from derived objects.
const settling = 2 * time.Second

func main() {
	if len(os.Args) < 4 {
		fail(fmt.Errorf("usage: istio-translate OUT router|sidecar NAMESPACE LABEL=VALUE... <manifests.yaml"))
	}
	labels := map[string]string{}
	for _, label := range os.Args[4:] {
		key, value, _ := strings.Cut(label, "=")
		labels[key] = value
	}
	manifests, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(err)
	}
	dump, err := translate(string(manifests), model.NodeType(os.Args[2]), os.Args[3], labels)
	if err != nil {
		fail(err)
	}
	if err := os.WriteFile(os.Args[1], dump, 0o644); err != nil {
		fail(err)
	}
}

func translate(manifests string, kind model.NodeType, namespace string, labels map[string]string) ([]byte, error) {
	var kubernetes, istio []string
	for _, document := range strings.Split(manifests, "\n---\n") {
		if strings.Contains(document, "networking.istio.io/") {
			istio = append(istio, document)
		} else {
			kubernetes = append(kubernetes, document)
		}
	}
	// There is no certificate authority here, so proxies talk in plaintext.
	settings := mesh.DefaultMeshConfig()
	settings.EnableAutoMtls = wrapperspb.Bool(false)
	var dump []byte
	err := test.Wrap(func(t test.Failer) {
		server := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
			KubernetesObjectString: strings.Join(kubernetes, "\n---\n"),
			ConfigString:           strings.Join(istio, "\n---\n"),
			MeshConfig:             settings,
			KubeClientModifier: func(client kube.Client) {
				clienttest.MakeCRD(t, client, gvr.InferencePool)
				// The Services of InferencePools are among the manifests; here istiod would keep rewriting them.
				objects := client.Kube().(*fake.Clientset)
				objects.PrependReactor("patch", "services", func(testing.Action) (bool, runtime.Object, error) {
					return true, &core.Service{}, nil
				})
			},
		})
		time.Sleep(settling)
		server.EnsureSynced(t)
		proxy := server.SetupProxy(&model.Proxy{
			Type:            kind,
			ConfigNamespace: namespace,
			Labels:          labels,
			IPAddresses:     []string{"192.0.2.100"},
			Metadata:        &model.NodeMetadata{Namespace: namespace, Labels: labels, IstioVersion: "1.31.0"},
		})
		var err error
		if dump, err = configDump(server, proxy); err != nil {
			t.Fatal(err)
		}
	})
	return dump, err
}

func configDump(server *xds.FakeDiscoveryServer, proxy *model.Proxy) ([]byte, error) {
	clusters, listeners := &admin.ClustersConfigDump{}, &admin.ListenersConfigDump{}
	routes, endpoints := &admin.RoutesConfigDump{}, &admin.EndpointsConfigDump{}
	for _, each := range server.Clusters(proxy) {
		one := &admin.ClustersConfigDump_DynamicCluster{Cluster: packed(each)}
		clusters.DynamicActiveClusters = append(clusters.DynamicActiveClusters, one)
	}
	for _, each := range server.Listeners(proxy) {
		state := &admin.ListenersConfigDump_DynamicListenerState{Listener: packed(each)}
		one := &admin.ListenersConfigDump_DynamicListener{Name: each.Name, ActiveState: state}
		listeners.DynamicListeners = append(listeners.DynamicListeners, one)
	}
	for _, each := range server.Routes(proxy) {
		one := &admin.RoutesConfigDump_DynamicRouteConfig{RouteConfig: packed(each)}
		routes.DynamicRouteConfigs = append(routes.DynamicRouteConfigs, one)
	}
	for _, each := range server.Endpoints(proxy) {
		one := &admin.EndpointsConfigDump_DynamicEndpointConfig{EndpointConfig: packed(each)}
		endpoints.DynamicEndpointConfigs = append(endpoints.DynamicEndpointConfigs, one)
	}
	configs := []*anypb.Any{packed(clusters), packed(listeners), packed(routes), packed(endpoints)}
	return protojson.Marshal(&admin.ConfigDump{Configs: configs})
}

func packed(message proto.Message) *anypb.Any {
	made, err := anypb.New(message)
	if err != nil {
		fail(err)
	}
	return made
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
