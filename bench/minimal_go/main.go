// A minimal ext_proc router in Go: the job and nothing else.
//
// It collects a request's body, reads from its JSON what a token budget needs, estimates the text at four bytes per
// token, and replies with the pool. A response is read for its usage if it will have one ("stream" is false); the
// usage is added up and otherwise not used. No health, no metrics, no deadline, no state that outlives a stream.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extproc "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/tidwall/gjson"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	bytesPerToken   = 4
	smallPoolTokens = 8192
	defaultOutput   = 1024
	maxMessageBytes = 64 << 20
)

type server struct {
	extproc.UnimplementedExternalProcessorServer
	tokens atomic.Int64
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	service := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessageBytes))
	extproc.RegisterExternalProcessorServer(service, &server{})
	fmt.Println(listener.Addr())
	log.Fatal(service.Serve(listener))
}

// Process serves one stream; it ends the stream after the request if no response is to be read.
func (s *server) Process(stream extproc.ExternalProcessor_ProcessServer) error {
	var body, response []byte
	pieces := 0
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch request := message.Request.(type) {
		case *extproc.ProcessingRequest_RequestBody:
			body = append(body, request.RequestBody.Body...)
			pieces++
			if !request.RequestBody.EndOfStream {
				continue
			}
			reply, streams := decide(body)
			if err := stream.Send(reply); err != nil || streams {
				return err
			}
			for range pieces {
				if err := stream.Send(neutralRequestBody); err != nil {
					return err
				}
			}
			body = nil
		case *extproc.ProcessingRequest_ResponseHeaders:
			if err := stream.Send(neutralResponseHeaders); err != nil {
				return err
			}
		case *extproc.ProcessingRequest_ResponseBody:
			response = append(response, request.ResponseBody.Body...)
			if request.ResponseBody.EndOfStream {
				s.tokens.Add(gjson.GetBytes(response, "usage.prompt_tokens").Int())
				return nil
			}
			if err := stream.Send(neutralResponseBody); err != nil {
				return err
			}
		}
	}
}

var (
	neutralRequestBody = &extproc.ProcessingResponse{
		Response: &extproc.ProcessingResponse_RequestBody{RequestBody: &extproc.BodyResponse{}},
	}
	neutralResponseHeaders = &extproc.ProcessingResponse{
		Response: &extproc.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extproc.HeadersResponse{}},
	}
	neutralResponseBody = &extproc.ProcessingResponse{
		Response: &extproc.ProcessingResponse_ResponseBody{ResponseBody: &extproc.BodyResponse{}},
	}
)

// decide returns the reply to a complete request, and whether its response is streamed.
func decide(body []byte) (*extproc.ProcessingResponse, bool) {
	found := gjson.GetManyBytes(body, "model", "messages.#.content", "max_tokens", "stream")
	textBytes := 0
	for _, content := range found[1].Array() {
		textBytes += len(content.String())
	}
	output := int(found[2].Int())
	if output == 0 {
		output = defaultOutput
	}
	budget := textBytes/bytesPerToken + output
	pool, reason := "long", "over_budget"
	if budget <= smallPoolTokens {
		pool, reason = "short", "fits"
	}
	return reply(pool, reason, budget), found[3].Bool()
}

func reply(pool, reason string, budget int) *extproc.ProcessingResponse {
	fields := map[string]*structpb.Value{
		"pool":     structpb.NewStringValue(pool),
		"reason":   structpb.NewStringValue(reason),
		"estimate": structpb.NewNumberValue(float64(budget)),
	}
	metadata := structpb.NewStructValue(&structpb.Struct{Fields: fields})
	return &extproc.ProcessingResponse{
		Response: &extproc.ProcessingResponse_RequestHeaders{RequestHeaders: &extproc.HeadersResponse{
			Response: &extproc.CommonResponse{
				ClearRouteCache: true,
				HeaderMutation: &extproc.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{
					set("x-dualpool-pool", pool),
					set("x-dualpool-reason", reason),
					set("x-dualpool-estimate", strconv.Itoa(budget)),
				}},
			},
		}},
		DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{"dualpool": metadata}},
	}
}

func set(key, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: key, RawValue: []byte(value)}}
}
