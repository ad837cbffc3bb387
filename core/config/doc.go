// Package config turns flags, environment and configuration files into one validated
// Config, and knows where each value came from, so that a mistake is answered with the
// flag or the file and line that holds it.
//
// Precedence, from weak to strong: default, configuration file, its drop-ins in the order
// of their names, environment, flag. An option that may be repeated is replaced as a whole by
// the stronger source, unless a drop-in says `key+:`; blocks of components are merged key by
// key.
//
// Nothing here touches the host: reading the configuration file is all that Load does.
package config
