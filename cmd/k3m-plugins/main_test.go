package main

import (
	"testing"

	"github.com/k3m-io/k3m/sdk"
)

// What the contract asks of every plugin, it asks of the built-in ones.
func TestInfosAreValid(t *testing.T) {
	for _, newPlugin := range plugins {
		if err := sdk.Describe(newPlugin()).Validate(); err != nil {
			t.Error(err)
		}
	}
}
