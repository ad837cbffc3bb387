#!/bin/sh
# Builds the sandbox's process: build.sh CC OUT
set -eu
exec "$1" -Os -static -nostdlib -ffreestanding -fomit-frame-pointer -fno-stack-protector \
	-fno-asynchronous-unwind-tables -fno-pie -no-pie -Wall -Wextra -Werror -Wl,--build-id=none \
	-Wl,-z,noseparate-code -Wl,-z,norelro -Wl,-z,noexecstack -s -o "$2" "$(dirname "$0")/pause.c"
