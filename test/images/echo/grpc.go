package main

import (
	"context"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/k3m-io/k3m/test/images/echo/answer"
)

// healthServer answers gRPC's health checks, and names its pod in the header of the answer.
func healthServer() *grpc.Server {
	named := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		pod, _ := os.Hostname()
		_ = grpc.SetHeader(ctx, metadata.Pairs(answer.Pod, pod)) // without it the answer is as good
		return next(ctx, req)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(named))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	return server
}
