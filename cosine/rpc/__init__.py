"""The wire: settings, servers, streams, errors as status codes, conversion. Where grpc is known."""
