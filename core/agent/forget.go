package agent

import (
	"fmt"
	"os"
)

// ForgetComponent removes what ComponentKubeconfig made for a component that does not run any
// more. The certificate is good until it ends; without the component's rights it opens nothing.
func (a *Agent) ForgetComponent(id string) error {
	if !componentID.MatchString(id) {
		return fmt.Errorf("forget component: %q is not a component's ID", id)
	}
	if err := os.RemoveAll(a.opts.path("components", id)); err != nil {
		return fmt.Errorf("forget component %s: %w", id, err)
	}
	return nil
}
