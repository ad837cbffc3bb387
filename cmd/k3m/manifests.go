package main

import (
	"context"

	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/manifests"
)

// keepManifests keeps the objects of the files in the manifests folder applied, until ctx ends.
func (s *server) keepManifests(ctx context.Context) error {
	if !happened(ctx, s.authorized) {
		return nil
	}
	keeper, err := manifests.New(manifests.Options{
		Dir: controlplane.ManifestsDir(s.plan.cfg.DataDir), Node: s.plan.cfg.NodeName,
		Config: s.controlPlane.AdminConfig(), Health: s.health, Logger: s.log,
	})
	if err != nil {
		return err
	}
	return keeper.Run(ctx)
}
