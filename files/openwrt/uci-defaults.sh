# Runs once, at OpenWrt's first boot: /etc/uci-defaults/99-osimager, made by osimager for >>fqdn<<
uci -q batch <<'END'
set system.@system[0].hostname=>>hostname<<
set system.@system[0].zonename=>>timezone<<
E>"set network.lan.proto='static'\nset network.lan.ipaddr='" + ip + "'\nset network.lan.netmask='" + netmask + "'\nset network.lan.gateway='" + gateway + "'" + ("\nset network.lan.dns='" + (dns1 + ' ' + dns2).strip() + "'" if dns1 else '') if ip and ip != 'dhcp' else "set network.lan.proto='dhcp'"<E
commit
END
# The build's access; the seal removes it.
echo '>>build_public_key<<' >> /etc/dropbear/authorized_keys
E>'echo ' + shell('\n'.join(authorized_keys)) + ' >> /etc/dropbear/authorized_keys' if authorized_keys else ''<E
E>'echo ' + shell('export http_proxy=' + shell(proxy) + ' https_proxy=' + shell(proxy)) + ' > /etc/profile.d/proxy.sh' if proxy else ''<E
passwd -l root
E>late_command<E
exit 0
