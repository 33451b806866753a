package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ApiVersions, API key 18, versions 0 to 4. Its response header never has tags, and a version above the range gets a body of version 0 with error 35 and the row of ApiVersions itself.
func (b *Broker) apiVersions(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	resp := kreq.ResponseKind().(*kmsg.ApiVersionsResponse)
	for i := range apis {
		resp.ApiKeys = append(resp.ApiKeys, apis[i].row())
	}
	// Clients that know it have the epoch of their producer raised with each transaction (KIP-890).
	supported := kmsg.NewApiVersionsResponseSupportedFeature()
	supported.Name, supported.MaxVersion = "transaction.version", 2
	finalized := kmsg.NewApiVersionsResponseFinalizedFeature()
	finalized.Name, finalized.MinVersionLevel, finalized.MaxVersionLevel = "transaction.version", 2, 2
	resp.SupportedFeatures, resp.FinalizedFeatures, resp.FinalizedFeaturesEpoch = []kmsg.ApiVersionsResponseSupportedFeature{supported}, []kmsg.ApiVersionsResponseFinalizedFeature{finalized}, 0
	return resp
}

func (a *api) row() kmsg.ApiVersionsResponseApiKey {
	row := kmsg.NewApiVersionsResponseApiKey()
	row.ApiKey, row.MinVersion, row.MaxVersion = int16(a.key), a.min, a.max
	return row
}

func (b *Broker) apiVersionsUnsupported() kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = kerr.UnsupportedVersion.Code
	resp.ApiKeys = append(resp.ApiKeys, lookup(int16(kmsg.ApiVersions)).row())
	return resp
}
