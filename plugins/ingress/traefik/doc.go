// Package traefik is the component ingress.traefik: Traefik v2 in the plugin's own process, which serves Ingresses and
// Traefik's own resources on every node.
//
// plugin.go says who the component is and runs it; config.go is what a user may configure, schema.go its schema,
// static.go turns it into Traefik's static configuration; server.go puts Traefik's parts together, as its own command
// does, with acme.go and entrypoints.go; controller.go watches the cluster, and says which Ingresses are the component's,
// what is wrong with them, and where they are reached; watches.go is what it keeps of the cluster in memory; translate.go,
// rules.go and services.go turn Ingresses into Traefik's dynamic configuration; crds.go are the definitions of Traefik's
// resources; dashboard.go and command.go lead a person to the dashboard; metrics.go and logging.go hand figures and log
// over.
//
// Traefik's own provider of Ingresses is not used: v2's takes the path type Prefix for a prefix of the string, prefers a
// prefix to an exact path, knows a default backend only of an Ingress without rules, has one name for the Services of
// two namespaces, and reads the deprecated Endpoints. Its provider of IngressRoutes and their like is.
package traefik
