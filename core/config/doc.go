// Package config turns flags, environment and configuration files into one validated
// Config, and knows where each value came from, so that a mistake is answered with the
// flag or the file and line that holds it.
//
// Precedence, from weak to strong: default, configuration file, environment, flag. An
// option that may be repeated is replaced as a whole by the stronger source.
//
// Nothing here touches the host: reading the configuration file is all that Load does.
package config
