# bsdinstall's script, made by osimager for >>fqdn<<
export nonInteractive=YES
DISTRIBUTIONS="kernel.txz base.txz"
BSDINSTALL_DISTSITE=E>shell(mirror or 'https://download.freebsd.org/releases/' + freebsd_arch + '/' + version + '-RELEASE')<E
E>'export HTTP_PROXY=' + shell(proxy) if proxy else ''<E
# bsdinstall's script brings up no network: what fetches and installs packages needs one.
E>'ifconfig vtnet0 inet ' + ip + ' netmask ' + netmask + '\nroute add default ' + gateway + ('\necho ' + shell('nameserver ' + dns1) + ' > /etc/resolv.conf' if dns1 else '') if ip and ip != 'dhcp' else 'dhclient vtnet0'<E
