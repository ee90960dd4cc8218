package entra

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// CloudRoots returns the root of Microsoft Graph and of the sign-in service for a cloud: public (also for ""), usgov (GCC High),
// usgovdod or china. Tokens of one cloud are not valid in another. https://learn.microsoft.com/graph/deployments
func CloudRoots(cloudName string) (graph, authority string, err error) {
	switch cloudName {
	case "", "public":
		return "https://graph.microsoft.com", cloud.AzurePublic.ActiveDirectoryAuthorityHost, nil
	case "usgov":
		return "https://graph.microsoft.us", cloud.AzureGovernment.ActiveDirectoryAuthorityHost, nil
	case "usgovdod":
		return "https://dod-graph.microsoft.us", cloud.AzureGovernment.ActiveDirectoryAuthorityHost, nil
	case "china":
		return "https://microsoftgraph.chinacloudapi.cn", cloud.AzureChina.ActiveDirectoryAuthorityHost, nil
	}
	return "", "", fmt.Errorf("there is no cloud %q; use public, usgov, usgovdod or china", cloudName)
}

// CredentialOptions say how Countersign signs in.
type CredentialOptions struct {
	// Kind is "secret", "certificate", "workload-identity" (Kubernetes) or "managed-identity" (Azure).
	Kind string
	// Tenant and ClientID name the app registration. A workload identity takes them from its environment when they are empty,
	// a managed identity has no tenant, and without a client id the system-assigned one is used.
	Tenant, ClientID string
	// Secret is for "secret".
	Secret string
	// CertificatePath names a PEM or PKCS#12 file with the certificate and its unencrypted private key, for "certificate".
	CertificatePath string
	// Cloud is as in CloudRoots. Authority, when set, replaces its sign-in service: an https address.
	Cloud, Authority string
	// HTTP reaches the sign-in service; nil means azidentity's own client.
	HTTP *http.Client
	// TrustAuthority skips instance discovery, which checks with Microsoft that the authority is known. Only for a private authority.
	TrustAuthority bool
}

// NewCredential makes the credential. It reads the certificate but does not get a token: with a wrong secret the first call fails with ErrSignIn.
func NewCredential(o CredentialOptions) (azcore.TokenCredential, error) {
	_, authority, err := CloudRoots(o.Cloud)
	if err != nil {
		return nil, err
	}
	if o.Authority != "" {
		authority = strings.TrimSuffix(o.Authority, "/") + "/"
	}
	if !strings.HasPrefix(authority, "https://") {
		return nil, fmt.Errorf("the authority %q must begin with https://", o.Authority)
	}
	options := azcore.ClientOptions{Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: authority}}
	if o.HTTP != nil {
		options.Transport = o.HTTP
	}
	if (o.Kind == "secret" || o.Kind == "certificate") && (o.Tenant == "" || o.ClientID == "") {
		return nil, fmt.Errorf("a credential of kind %q needs the tenant id and the client id of the app registration", o.Kind)
	}

	switch o.Kind {
	case "secret":
		if o.Secret == "" {
			return nil, errors.New("the client secret is empty")
		}
		return orNil(azidentity.NewClientSecretCredential(o.Tenant, o.ClientID, o.Secret, &azidentity.ClientSecretCredentialOptions{
			ClientOptions: options, DisableInstanceDiscovery: o.TrustAuthority}))
	case "certificate":
		data, err := os.ReadFile(o.CertificatePath)
		if err != nil {
			return nil, fmt.Errorf("the client certificate: %w", err)
		}
		chain, key, err := azidentity.ParseCertificates(data, nil)
		if err != nil {
			return nil, fmt.Errorf("the client certificate %s: %w", o.CertificatePath, err)
		}
		return orNil(azidentity.NewClientCertificateCredential(o.Tenant, o.ClientID, chain, key, &azidentity.ClientCertificateCredentialOptions{
			ClientOptions: options, DisableInstanceDiscovery: o.TrustAuthority}))
	case "workload-identity":
		return orNil(azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: options, DisableInstanceDiscovery: o.TrustAuthority, TenantID: o.Tenant, ClientID: o.ClientID}))
	case "managed-identity":
		m := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
		if o.ClientID != "" {
			m.ID = azidentity.ClientID(o.ClientID)
		}
		return orNil(azidentity.NewManagedIdentityCredential(m))
	}
	return nil, fmt.Errorf("there is no credential of kind %q; use secret, certificate, workload-identity or managed-identity", o.Kind)
}

// orNil keeps a nil pointer from becoming an interface that is not nil.
func orNil[C azcore.TokenCredential](c C, err error) (azcore.TokenCredential, error) {
	if err != nil {
		return nil, fmt.Errorf("the credential for Microsoft Graph: %w", err)
	}
	return c, nil
}
