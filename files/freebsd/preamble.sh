# bsdinstall's script, made by osimager for >>fqdn<<
export nonInteractive=YES
DISTRIBUTIONS="kernel.txz base.txz"
BSDINSTALL_DISTSITE=E>shell(mirror or 'https://download.freebsd.org/releases/' + freebsd_arch + '/' + version + '-RELEASE')<E
E>'export HTTP_PROXY=' + shell(proxy) if proxy else ''<E
