/* A QEMU TCG plugin that counts the instructions that the guest executes. It connects to the Unix
 * socket named by its option socket= and answers every byte read there with the count so far, 8
 * bytes in the host's order.
 *
 * The count is added to by the translated code itself (an inline operation for each block), which
 * costs next to nothing; a block that an exception leaves early counts in full.
 *
 * QEMU's header is in no Debian package that we need otherwise: what is used of it stands here.
 * Plugin API 3, QEMU 9.1 and newer. */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct block;
struct machine;
struct scoreboard;
struct counter {
	struct scoreboard *score;
	size_t offset;
};
enum operation { ADD = 0 };

struct scoreboard *qemu_plugin_scoreboard_new(size_t size);
uint64_t qemu_plugin_u64_sum(struct counter);
size_t qemu_plugin_tb_n_insns(const struct block *);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t plugin, void (*)(uint64_t, struct block *));
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct block *, enum operation, struct counter, uint64_t);

EXPORT int qemu_plugin_version = 3;

static struct counter executed;

static void translated(uint64_t plugin, struct block *b)
{
	(void)plugin;
	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(b, ADD, executed, qemu_plugin_tb_n_insns(b));
}

static void *answer(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char question;

	while (read(fd, &question, 1) == 1) {
		uint64_t n = qemu_plugin_u64_sum(executed);
		if (write(fd, &n, sizeof n) != sizeof n)
			break;
	}
	close(fd);
	return NULL;
}

EXPORT int qemu_plugin_install(uint64_t plugin, const struct machine *m, int argc, char **argv)
{
	static const char option[] = "socket=";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	pthread_t thread;
	int fd;

	(void)m;
	if (argc != 1 || strncmp(argv[0], option, sizeof option - 1))
		return -1;
	strncpy(address.sun_path, argv[0] + sizeof option - 1, sizeof address.sun_path - 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
		return -1;
	executed.score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	qemu_plugin_register_vcpu_tb_trans_cb(plugin, translated);
	return pthread_create(&thread, NULL, answer, (void *)(intptr_t)fd) ? -1 : 0;
}
