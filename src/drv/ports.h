/* TCP ports: held for a cloud, and who has them otherwise.
 *
 * A hold is a socket that is bound without SO_REUSEADDR, on which the option is set after the bind,
 * and which never listens: the JVM (which sets SO_REUSEADDR) can bind and listen all the same, but
 * Linux gives the port to no outgoing connection and refuses it to other plain binds, so to other
 * fleets. Measured with H2O; see HACKING.md. Holds cannot be made while the JVM listens, so they
 * are kept for the life of a cloud. Nothing here ever connects: connecting to H2O's internal port
 * (API + 1) bricks a node. */
#pragma once

#include "base/err.h"

struct port_hold {
	int fd;    /* bound, never listening */
	int claim; /* "held by an h2ofleet", in the abstract namespace of unix sockets */
};

struct port_pair {
	uint16_t api; /* the internal port is api + 1; 0: not held */
	struct port_hold api_hold, internal_hold;
};

#define PORT_HOLD_NULL ((struct port_hold){-1, -1})
#define PORT_PAIR_NULL ((struct port_pair){0, PORT_HOLD_NULL, PORT_HOLD_NULL})

/* Holds `api` on api_addr and `api`+1 on internal_addr (numeric IPv4 or IPv6). 0; -EADDRINUSE and
 * which of the two it is in *taken (may be NULL); another negative errno. All or nothing. */
int port_pair_hold(const char *api_addr, const char *internal_addr, uint16_t api,
	struct port_pair *out, uint16_t *taken);

/* As much of that as can be had while a JVM listens there: the claim, which keeps other fleets off.
 * 0; -EADDRINUSE when another fleet has it; another negative errno. */
int port_pair_claim(
	const char *api_addr, const char *internal_addr, uint16_t api, struct port_pair *out);

/* Binds what port_pair_claim() could not. 0 when nothing is missing any more; -EADDRINUSE and which
 * of the two it is in *taken (may be NULL); another negative errno. What there is stays. */
int port_pair_complete(
	const char *api_addr, const char *internal_addr, struct port_pair *p, uint16_t *taken);

/* To the image that replaces this one, and there, from the one that it has replaced: false when
 * that has handed over nothing of this port. */
void port_pair_hand_over(const struct port_pair *p);
bool port_pair_take_over(uint16_t api, struct port_pair *out);

void port_pair_release(struct port_pair *p);

/* Is it held, or a door, of this very process? */
bool port_is_claimed(uint16_t port);

/* A port to listen on ourselves, on an IPv4 address and, where the machine has IPv6, on its
 * counterpart. */
struct door_port {
	uint16_t port; /* 0: none */
	int claim;     /* as in port_hold; -1 for systemd's sockets */
	int fds[2];    /* IPv4, IPv6: bound, and not listening; or -1 */
};

#define DOOR_PORT_NULL ((struct door_port){0, -1, {-1, -1}})

/* Binds `port` of localhost, or of all addresses. 0, -EADDRINUSE or another negative errno; all or
 * nothing. */
int door_port_bind(bool everywhere, uint16_t port, struct door_port *out);

/* The claim only: others have the sockets already. 0 or a negative errno. */
int door_port_claim(struct door_port *d);
void door_port_release(struct door_port *d);

/* Who listens on, or is bound to, a TCP port of this network namespace? From /proc/net/tcp{,6} and
 * /proc/PID/fd: "pid 812 (python3)", "pid 812 (java) of user alice" when that is not our user, or
 * "a process of user alice" when its descriptors may not be read. When no process has it any more,
 * "a closed connection that the kernel remembers for up to a minute (TIME_WAIT)". A socket that is
 * bound but does not listen, as another fleet's hold, is in no table; Linux 6.8 and later tell of
 * it by netlink. NULL when nobody is found. Owned by the caller. */
char *port_holder(uint16_t port);

/* The same as a whole sentence: "port 54321 is taken by pid 812 (python3)", or "port 54321 is
 * taken, by whom is not known". Owned by the caller. */
char *port_holder_sentence(uint16_t port);

/* Is there nothing on the port but what is left of connections: TIME_WAIT, or FIN_WAIT until the
 * other side has closed, too? That hinders a plain bind, and is what a stopped cloud leaves. So is
 * what the gate has not closed yet. */
bool port_has_only_remains(uint16_t port);

/* From now on sockets of this process count as remains, but for listening ones: it is told to close
 * them, and may need a moment. 0: none. */
void port_is_let_go_by(pid_t pid);

/* Could a server that sets SO_REUSEADDR, as every JVM does, bind it on `address` now? A hold of
 * ours does not hinder it, a listener does. */
bool port_is_open_to_jvm(const char *address, uint16_t port);

/* Does the port lie in the range that the kernel uses for outgoing connections
 * (net.ipv4.ip_local_port_range), and not in ip_local_reserved_ports? */
bool port_is_ephemeral(uint16_t port);
