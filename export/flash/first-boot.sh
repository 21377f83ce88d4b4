#!/bin/sh
# Installs cutlayer from the boot partition, as root on the board. cloud-init starts it once; it hands over to a unit of
# systemd, which goes on after a power cut until the claim has been used up.
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)
units=${CUTLAYER_UNITS-/etc/systemd/system}
unit=cutlayer-card.service

if [ "${1-}" != install ]; then
    cat > "$units/$unit.new" <<END
[Unit]
Description=Install cutlayer from the boot partition
ConditionPathExists=$here/claim.json
RequiresMountsFor=$here
StartLimitIntervalSec=1h
StartLimitBurst=10
[Service]
Type=oneshot
ExecStart=/bin/sh $here/first-boot.sh install
TimeoutStartSec=infinity
Restart=on-failure
RestartSec=30
[Install]
WantedBy=multi-user.target
END
    chmod 644 "$units/$unit.new"
    mv "$units/$unit.new" "$units/$unit"
    systemctl daemon-reload
    systemctl enable "$unit"
    sync
    # cloud-init need not wait: the installer waits for the time to be set, which may take a while.
    systemctl start --no-block "$unit"
    exit 0
fi

if ! command -v python3 > /dev/null; then
    echo "cutlayer: there is no python3 on this system, so nothing can be installed" >&2
    exit 1
fi
set -- install "$here/board.release" --keys "$here/release-keys" --claim "$here/claim.json"
if [ -e "$here/device.toml" ]; then
    set -- "$@" --config "$here/device.toml"
fi
python3 -I "$here/installer.pyz" "$@"
# The installer has put the claim where only the service reads it. Blanks over it first: a name alone is little removed.
size=$(wc -c < "$here/claim.json")
head -c "$size" /dev/zero > "$here/claim.json" || true
sync
rm -f "$here/claim.json" "$here/board.release"
sync
systemctl disable "$unit"
rm -f "$units/$unit"
