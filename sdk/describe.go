package sdk

import "slices"

// APIMinor counts the additions to protocol version 1 that this SDK knows.
const APIMinor = 2

// Abilities that a host may find in Info.Abilities.
const (
	// AbilityValidateConfig says that ValidateConfig is served: the plugin is a
	// ConfigValidator or has a ConfigSchema.
	AbilityValidateConfig = "validate-config"
	// AbilityCleanup says that the plugin is a Cleaner.
	AbilityCleanup = "cleanup"
	// AbilityMetrics says that the plugin is a MetricsWriter.
	AbilityMetrics = "metrics"
	// AbilityCommand says that the plugin is a Commander.
	AbilityCommand = "command"
)

// Describe returns p's Info as a host sees it, with the abilities that p's type shows
// and the contract's minor version filled in.
func Describe(p Plugin) Info {
	info := p.Info()
	info.APIMinor = APIMinor
	info.Abilities = nil
	if _, ok := p.(ConfigValidator); ok || info.ConfigSchema != nil {
		info.Abilities = append(info.Abilities, AbilityValidateConfig)
	}
	if _, ok := p.(Cleaner); ok {
		info.Abilities = append(info.Abilities, AbilityCleanup)
	}
	if _, ok := p.(MetricsWriter); ok {
		info.Abilities = append(info.Abilities, AbilityMetrics)
	}
	if _, ok := p.(Commander); ok {
		info.Abilities = append(info.Abilities, AbilityCommand)
	}
	return info
}

// Has tells whether the component has an ability.
func (i Info) Has(ability string) bool { return slices.Contains(i.Abilities, ability) }
