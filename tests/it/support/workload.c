/* What runs in the containers of the engine's tests: one static program that needs nothing beside itself.
 *
 *   workload wait                 until SIGTERM
 *   workload stubborn             until SIGKILL
 *   workload exit CODE TEXT...    says TEXT on standard error and ends
 *   workload count N              N numbered lines on both outputs, then waits
 *   workload tick                 a numbered line every 50 ms
 *   workload raw                  bytes that are no UTF-8, a line of 200,000 bytes, a line without end
 *   workload flood BYTES          so many bytes of lines, then waits
 *   workload eat                  memory until it is killed
 *   workload spin                 one processor's time
 *   workload fork N               N children; says how many came to be, then waits
 *   workload self                 what it may do, then waits
 *   workload env NAME             the value of a variable, then waits
 *   workload listen PORT          answers every connection with "hello"
 *   workload connect HOST:PORT... tries each once and says what came of it, then waits
 *
 * Under the name mcp-fleet-bridge it stands in for the bridge: it says its arguments and runs what follows "--".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void done(int signal) {
    (void)signal;
    _exit(0);
}

static int wait_for_ever(void) {
    for (;;) pause();
    return 0;
}

static void show_lines(const char *path, const char *const *names) {
    char line[512];
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        for (const char *const *name = names; *name; name++)
            if (strncmp(line, *name, strlen(*name)) == 0) fputs(line, stdout);
    if (file) fclose(file);
}

static void try_to_write(const char *path) {
    int file = open(path, O_CREAT | O_WRONLY, 0755);
    printf("write %s: %s\n", path, file < 0 ? strerror(errno) : "done");
    if (file >= 0) close(file);
}

static const char *connected(char *target) {
    char *colon = strrchr(target, ':');
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1))};
    *colon = 0;
    inet_pton(AF_INET, target, &to.sin_addr);
    *colon = ':';
    int socket_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connect(socket_, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) return strerror(errno);
    struct pollfd poll_ = {.fd = socket_, .events = POLLOUT};
    if (poll(&poll_, 1, 2000) == 0) return "no answer";
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(socket_, SOL_SOCKET, SO_ERROR, &error, &size);
    close(socket_);
    return error ? strerror(error) : "connected";
}

static int serve(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 16) < 0) return 1;
    puts("listening");
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) continue;
        if (write(client, "hello\n", 6) < 0) perror("write");
        close(client);
    }
}

int main(int count, char **words) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strstr(words[0], "mcp-fleet-bridge")) {
        for (int at = 1; at < count; at++) {
            printf("bridge: %s\n", words[at]);
            if (strcmp(words[at], "--") == 0) execv(words[at + 1], words + at + 1);
        }
        return 1;
    }
    const char *what = count > 1 ? words[1] : "wait";
    int number = count > 2 ? atoi(words[2]) : 0;
    if (strcmp(what, "stubborn") == 0) {
        signal(SIGTERM, SIG_IGN);
        return wait_for_ever();
    }
    signal(SIGTERM, done);
    if (strcmp(what, "exit") == 0) {
        for (int at = 3; at < count; at++) fprintf(stderr, "%s\n", words[at]);
        return number;
    } else if (strcmp(what, "count") == 0) {
        for (int line = 1; line <= number; line++) {
            printf("out %d\n", line);
            fprintf(stderr, "err %d\n", line);
        }
    } else if (strcmp(what, "tick") == 0) {
        for (int line = 1;; line++) {
            printf("tick %d\n", line);
            usleep(50000);
        }
    } else if (strcmp(what, "raw") == 0) {
        fputs("bad \xff\xfe text\n", stdout);
        for (int byte = 0; byte < 200000; byte++) putchar('x');
        fputs("\nno end", stdout);
        return 0;
    } else if (strcmp(what, "flood") == 0) {
        char line[1000];
        memset(line, 'f', sizeof line);
        line[sizeof line - 1] = '\n';
        for (long long left = atoll(words[2]); left > 0; left -= sizeof line) fwrite(line, sizeof line, 1, stdout);
        puts("\nflooded");
    } else if (strcmp(what, "eat") == 0) {
        for (;;) {
            char *some = malloc(1 << 20);
            if (some) memset(some, 1, 1 << 20);
        }
    } else if (strcmp(what, "spin") == 0) {
        for (;;) number++;
    } else if (strcmp(what, "fork") == 0) {
        int children = 0;
        for (; children < number; children++) {
            pid_t child = fork();
            if (child == 0) return wait_for_ever();
            if (child < 0) break;
        }
        printf("children %d\n", children);
    } else if (strcmp(what, "self") == 0) {
        const char *const names[] = {"Uid:", "Gid:", "CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:", "Max open files", NULL};
        show_lines("/proc/self/status", names);
        show_lines("/proc/self/limits", names);
        try_to_write("/written");
        try_to_write("/tmp/written");
    } else if (strcmp(what, "env") == 0) {
        puts(getenv(words[2]) ? getenv(words[2]) : "not set");
    } else if (strcmp(what, "listen") == 0) {
        return serve(number);
    } else if (strcmp(what, "connect") == 0) {
        for (int at = 2; at < count; at++) printf("%s: %s\n", words[at], connected(words[at]));
        puts("tried");
    }
    return wait_for_ever();
}
