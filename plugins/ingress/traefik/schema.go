package traefik

// configSchema is the JSON Schema of config, for `k3m component info`, editors and ValidateConfig.
const configSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "httpPort": {
      "description": "port of the Service for HTTP; 80 for the first ingress chosen",
      "type": "integer", "minimum": 1, "maximum": 65535
    },
    "httpsPort": {
      "description": "port of the Service for HTTPS; 443 for the first ingress chosen",
      "type": "integer", "minimum": 1, "maximum": 65535
    },
    "hostPorts": {
      "description": "bind the ports on the node's own addresses too, for clusters without a load balancer; the Service is then of type NodePort",
      "type": "boolean", "default": false
    },
    "entryPoints": {
      "description": "entry points beside web and websecure, by name",
      "type": "object",
      "additionalProperties": {
        "type": "object", "additionalProperties": false, "required": ["port"],
        "properties": {
          "port": {"description": "port of the Service", "type": "integer", "minimum": 1, "maximum": 65535},
          "listen": {"description": "port that is listened on, on the node's pod gateway; by default that of the Service", "type": "integer", "minimum": 1, "maximum": 65535},
          "protocol": {"description": "the transport", "type": "string", "enum": ["TCP", "UDP"], "default": "TCP"},
          "tls": {"description": "HTTP routers on it have TLS", "type": "boolean", "default": false}
        }
      }
    },
    "logLevel": {
      "description": "what Traefik logs",
      "type": "string", "enum": ["debug", "info", "warn", "error"], "default": "warn"
    },
    "accessLog": {
      "description": "a line for each request in the component's log",
      "type": "object", "additionalProperties": false,
      "properties": {
        "enabled": {"type": "boolean", "default": false},
        "format": {"type": "string", "enum": ["common", "json"], "default": "common"}
      }
    },
    "forwardedHeaders": {
      "description": "whose X-Forwarded- headers are believed; by default nobody's",
      "type": "object", "additionalProperties": false,
      "properties": {
        "trustedIPs": {"description": "addresses and CIDRs", "type": "array", "maxItems": 100, "items": {"type": "string", "minLength": 2, "maxLength": 60}},
        "insecure": {"description": "believe everybody", "type": "boolean", "default": false}
      }
    },
    "proxyProtocol": {
      "description": "whose PROXY protocol header is believed; by default nobody's",
      "type": "object", "additionalProperties": false,
      "properties": {
        "trustedIPs": {"description": "addresses and CIDRs", "type": "array", "maxItems": 100, "items": {"type": "string", "minLength": 2, "maxLength": 60}},
        "insecure": {"description": "believe everybody", "type": "boolean", "default": false}
      }
    },
    "defaultCertificate": {
      "description": "<namespace>/<name> of the TLS secret that is shown when no other fits; by default one that Traefik makes",
      "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
    },
    "redirectToHTTPS": {
      "description": "answer every request for HTTP with a redirect to HTTPS",
      "type": "boolean", "default": false
    },
    "acme": {
      "description": "ACME certificate resolvers, by name",
      "type": "object",
      "additionalProperties": {
        "type": "object", "additionalProperties": false, "required": ["email"],
        "properties": {
          "email": {"description": "of the ACME account", "type": "string", "pattern": "^[^@\\s]+@[^@\\s]+$", "maxLength": 254},
          "caServer": {"description": "the directory of the authority; by default Let's Encrypt's", "type": "string", "pattern": "^https://[^\\s]+$", "maxLength": 2000},
          "caCertificates": {"description": "PEM certificates that caServer's own may be signed by, beside those that the system trusts; every resolver believes them", "type": "string", "maxLength": 65536},
          "keyType": {"description": "of certificates' keys", "type": "string", "enum": ["EC256", "EC384", "RSA2048", "RSA4096", "RSA8192"], "default": "EC256"},
          "preferredChain": {"description": "the chain to choose, by its issuer's common name", "type": "string", "maxLength": 200},
          "httpChallenge": {"description": "prove a name by HTTP on port 80", "type": "boolean", "default": false},
          "tlsChallenge": {"description": "prove a name by TLS-ALPN on port 443", "type": "boolean", "default": false},
          "dnsChallenge": {
            "description": "prove a name by DNS",
            "type": "object", "additionalProperties": false, "required": ["provider"],
            "properties": {
              "provider": {"description": "the DNS provider, by lego's name", "type": "string", "pattern": "^[a-z0-9-]{1,40}$"},
              "resolvers": {"description": "DNS servers that are asked whether the record is there", "type": "array", "maxItems": 10, "items": {"type": "string", "minLength": 2, "maxLength": 260}}
            }
          },
          "credentialsSecret": {
            "description": "<namespace>/<name> of the secret whose keys are the environment variables that the DNS provider wants; read when the component starts",
            "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
          }
        }
      }
    },
    "allowCrossNamespace": {
      "description": "IngressRoutes may name middlewares, services and TLS options of other namespaces",
      "type": "boolean", "default": false
    },
    "allowExternalNameServices": {
      "description": "Services of type ExternalName may be backends",
      "type": "boolean", "default": false
    },
    "static": {
      "description": "options of Traefik's static configuration, in the form of its file: accessLog, entryPoints, hostResolver, metrics, providers, serversTransport, tracing. Keys of this block and what k3m decides itself come first",
      "type": "object"
    }
  }
}`
