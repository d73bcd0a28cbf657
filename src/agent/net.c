/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two interfaces, by ioctl
 *
 * The addresses are the defaults of QEMU's built-in network (slirp), which are
 * the same in every guest, so that a restored guest needs no new ones. A DHCP
 * client would be a process and a wake-up every few hours.
 */
#include "agent/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define NET_ADDRESS 0x0a00020fu /* 10.0.2.15 */
#define NET_MASK 0xffffff00u
#define NET_GATEWAY 0x0a000202u /* 10.0.2.2 */

static const char net_resolv[] = "nameserver 10.0.2.3\n";

static void net_addr(struct sockaddr *ret, uint32_t host_order)
{
	struct sockaddr_in in = { .sin_family = AF_INET };

	in.sin_addr.s_addr = htonl(host_order);
	memcpy(ret, &in, sizeof(*ret));
}

static int net_set_up(int fd, const char *name)
{
	struct ifreq req = { 0 };

	strcpy(req.ifr_name, name);
	if (ioctl(fd, SIOCGIFFLAGS, &req) < 0)
		return -errno;
	req.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &req) < 0 ? -errno : 0;
}

static int net_configure(int fd, const char *name)
{
	struct rtentry route = { 0 };
	struct ifreq req = { 0 };
	int r;

	strcpy(req.ifr_name, name);
	net_addr(&req.ifr_addr, NET_ADDRESS);
	if (ioctl(fd, SIOCSIFADDR, &req) < 0)
		return -errno;
	net_addr(&req.ifr_netmask, NET_MASK);
	if (ioctl(fd, SIOCSIFNETMASK, &req) < 0)
		return -errno;
	r = net_set_up(fd, name);
	if (r < 0)
		return r;
	net_addr(&route.rt_dst, 0);
	net_addr(&route.rt_genmask, 0);
	net_addr(&route.rt_gateway, NET_GATEWAY);
	route.rt_flags = RTF_UP | RTF_GATEWAY;
	if (ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST)
		return -errno;
	return 0;
}

/* Often a link to what a daemon would have written: that counts as missing. */
static void net_name_server(void)
{
	const char *path = "/etc/resolv.conf";
	struct stat st;
	int fd;

	if (stat(path, &st) == 0 && st.st_size > 0)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 && unlink(path) == 0)
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return; /* read-only, or no /etc at all: then nobody asks */
	if (write(fd, net_resolv, strlen(net_resolv)) < 0)
		unlink(path);
	close(fd);
}

static int net_socket(struct err *e)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? err_errno(e, errno, "socket") : fd;
}

int net_up(struct err *e)
{
	int fd = net_socket(e), r;

	if (fd < 0)
		return fd;
	r = net_set_up(fd, "lo");
	if (r < 0)
		r = err_errno(e, -r, "lo");
	close(fd);
	return r;
}

int net_attach(struct err *e)
{
	int fd, r;

	if (!if_nametoindex("eth0"))
		return 0;
	fd = net_socket(e);
	if (fd < 0)
		return fd;
	r = net_configure(fd, "eth0");
	if (r < 0)
		r = err_errno(e, -r, "eth0");
	net_name_server();
	close(fd);
	return r;
}
