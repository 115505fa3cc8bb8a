"""What right programs do, in every language that runs: one program each, which does what it is
asked to by the first word of its input.
"""

import pytest

from haloforge.errors import ResourceError
from haloforge.schema import Outcome, Test
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.toolchains import TOOLCHAINS, Toolchain, require
from tests.attacking import verdict
from tests.integration.test_right_programs import NUMBERS, SETTINGS, WORDS

TESTS = [
    Test(stdin="much\n", stdout=NUMBERS),
    Test(stdin="threads\n", stdout="28\n"),
    Test(stdin="deep 50000\n", stdout="50000\n"),
    Test(stdin="large\n", stdout="7\n"),
    Test(stdin="loud\n", stdout="1\n"),  # writes what is no UTF-8 to its standard error
    Test(stdin="crlf\r\n1\r\n2\r\n", stdout="3\n1\n"),
    Test(stdin=f"unread\n{WORDS}", stdout="1\n"),
]
C = r"""
#include <pthread.h>
#include <stdio.h>
#include <string.h>
static int big[75 << 20];
static int sum;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *add(void *n) {
    pthread_mutex_lock(&lock);
    sum += *(int *)n;
    pthread_mutex_unlock(&lock);
    return NULL;
}
static int deep(int n) {
    volatile char pad[64] = {0};
    return n ? pad[0] + 1 + deep(n - 1) : 0;
}
int main(void) {
    char word[16];
    int a = 0, b = 0;
    if (scanf("%15s", word) != 1) return 1;
    if (!strcmp(word, "much"))
        for (int n = 0; n < 65000; n++) printf("%d\n", n * 7);
    else if (!strcmp(word, "threads")) {
        pthread_t pool[8];
        int values[8];
        for (int n = 0; n < 8; n++) {
            values[n] = n;
            if (pthread_create(&pool[n], NULL, add, &values[n])) return 2;
        }
        for (int n = 0; n < 8; n++) pthread_join(pool[n], NULL);
        printf("%d\n", sum);
    } else if (!strcmp(word, "deep") && scanf("%d", &a) == 1)
        printf("%d\n", deep(a));
    else if (!strcmp(word, "large")) {
        for (int n = 0; n < 75 << 20; n += 512) big[n] = 7;
        printf("%d\n", big[512] + big[5]);
    } else if (!strcmp(word, "loud")) {
        fwrite("\xff\xfe", 1, 2, stderr);
        puts("1");
    } else if (!strcmp(word, "crlf") && scanf("%d%d", &a, &b) == 2)
        printf("%d\r\n%d\r\n", a + b, a);
    else
        puts("1");
    return 0;
}
"""
CPP = r"""
#include <atomic>
#include <iostream>
#include <string>
#include <thread>
#include <vector>
static int big[75 << 20];
static int deep(int n) {
    volatile char pad[64] = {0};
    return n ? pad[0] + 1 + deep(n - 1) : 0;
}
int main() {
    std::string word;
    int a = 0, b = 0;
    std::cin >> word;
    if (word == "much")
        for (int n = 0; n < 65000; n++) std::cout << n * 7 << std::endl;
    else if (word == "threads") {
        std::atomic<int> sum{0};
        std::vector<std::thread> pool;
        for (int n = 0; n < 8; n++) pool.emplace_back([&sum, n] { sum += n; });
        for (auto &thread : pool) thread.join();
        std::cout << sum << "\n";
    } else if (word == "deep" && std::cin >> a)
        std::cout << deep(a) << "\n";
    else if (word == "large") {
        for (int n = 0; n < 75 << 20; n += 512) big[n] = 7;
        std::cout << big[512] + big[5] << "\n";
    } else if (word == "loud")
        std::cerr << "\xff\xfe", std::cout << "1\n";
    else if (word == "crlf" && std::cin >> a >> b)
        std::cout << a + b << "\r\n" << a << "\r\n";
    else
        std::cout << "1\n";
}
"""
RUST = r"""
use std::io::{self, BufRead, Write};
static mut BIG: [u8; 64 << 20] = [0; 64 << 20];
fn deep(n: u32) -> u32 {
    let pad = [0u32; 16];
    let zero = unsafe { std::ptr::read_volatile(&pad[3]) };
    if n > 0 { zero + 1 + deep(n - 1) } else { 0 }
}
fn main() {
    let stdin = io::stdin();
    let mut lines = stdin.lock().lines().map(|line| line.unwrap());
    let first = lines.next().unwrap();
    let words: Vec<&str> = first.split_whitespace().collect();
    match words[0] {
        "much" => for n in 0..65000 { println!("{}", n * 7) },
        "threads" => {
            let pool: Vec<_> = (0..8u32).map(|n| std::thread::spawn(move || n)).collect();
            println!("{}", pool.into_iter().map(|one| one.join().unwrap()).sum::<u32>());
        }
        "deep" => println!("{}", deep(words[1].parse().unwrap())),
        "large" => unsafe {
            for n in (0..64 << 20).step_by(4096) { BIG[n] = 7 }
            println!("{}", BIG[4096] + BIG[5]);
        },
        "loud" => {
            io::stderr().write_all(b"\xff\xfe").unwrap();
            println!("1");
        }
        "crlf" => {
            let a: i32 = lines.next().unwrap().trim().parse().unwrap();
            let b: i32 = lines.next().unwrap().trim().parse().unwrap();
            print!("{}\r\n{}\r\n", a + b, a);
        }
        _ => println!("1"),
    }
}
"""
GO = r"""
package main

import (
	"fmt"
	"os"
	"sync"
)

var big [300 << 20]byte

func deep(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + deep(n-1)
}

func main() {
	var word string
	var a, b int
	fmt.Scan(&word)
	switch word {
	case "much":
		for n := 0; n < 65000; n++ {
			fmt.Println(n * 7)
		}
	case "threads":
		var all sync.WaitGroup
		var lock sync.Mutex
		for n := 0; n < 8; n++ {
			all.Add(1)
			go func(n int) {
				defer all.Done()
				lock.Lock()
				defer lock.Unlock()
				a += n
			}(n)
		}
		all.Wait()
		fmt.Println(a)
	case "deep":
		fmt.Scan(&a)
		fmt.Println(deep(a))
	case "large":
		for n := 0; n < len(big); n += 4096 {
			big[n] = 7
		}
		fmt.Println(big[4096] + big[5])
	case "loud":
		os.Stderr.Write([]byte{0xff, 0xfe})
		fmt.Println(1)
	case "crlf":
		fmt.Scan(&a, &b)
		fmt.Printf("%d\r\n%d\r\n", a+b, a)
	default:
		fmt.Println(1)
	}
}
"""
PYTHON = r"""
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor

def deep(n):
    return n and 1 + deep(n - 1)

word, *more = input().split()
if word == "much":
    for n in range(65000):
        print(n * 7)
elif word == "threads":
    with ThreadPoolExecutor(8) as pool:
        print(sum(pool.map(abs, range(8))))
elif word == "deep":
    sys.setrecursionlimit(10**6)
    threading.stack_size(128 << 20)
    thread = threading.Thread(target=lambda: print(deep(int(more[0]))))
    thread.start()
    thread.join()
elif word == "large":
    big = bytearray(400 << 20)
    big[::4096] = b"\7" * len(big[::4096])
    print(big[4096] + big[5])
elif word == "loud":
    os.write(2, b"\xff\xfe")
    print(1)
elif word == "crlf":
    a, b = int(input()), int(input())
    print(f"{a + b}\r\n{a}\r")
else:
    print(1)
"""
JAVASCRIPT = r"""
const fs = require("fs");
const { Worker } = require("worker_threads");
const deep = (n) => (n ? 1 + deep(n - 1) : 0);
const start = Buffer.alloc(64);
const text = start.toString("utf8", 0, fs.readSync(0, start));
const [word, a, b] = text.split(/\s+/);
if (word === "much") for (let n = 0; n < 65000; n++) console.log(n * 7);
else if (word === "threads") {
  const add = "const { parentPort, workerData } = require('worker_threads'); " +
    "parentPort.postMessage(workerData);";
  const one = (n) => new Promise((done, fail) => {
    const worker = new Worker(add, { eval: true, workerData: n });
    worker.on("message", done).on("error", fail);
  });
  Promise.all([13, 15].map(one)).then((all) => console.log(all.reduce((x, y) => x + y)));
} else if (word === "deep") {
  let total = 0; // Node's own limit is at some 10,000
  for (let n = 0; n < a; n += 5000) total += deep(5000);
  console.log(total);
} else if (word === "large") {
  const big = new Uint8Array(400 << 20);
  for (let n = 0; n < big.length; n += 4096) big[n] = 7;
  console.log(big[4096] + big[5]);
} else if (word === "loud") {
  process.stderr.write(Buffer.from([0xff, 0xfe]));
  console.log(1);
} else if (word === "crlf") process.stdout.write(`${+a + +b}\r\n${a}\r\n`);
else console.log(1);
"""
JAVA = r"""
import java.util.*;
import java.util.concurrent.*;

public class Program {
    static byte[] big;

    static int deep(int n) {
        return n == 0 ? 0 : 1 + deep(n - 1);
    }

    public static void main(String[] args) throws Exception {
        Scanner in = new Scanner(System.in);
        switch (in.next()) {
            case "much" -> {
                for (int n = 0; n < 65000; n++) System.out.println(n * 7);
            }
            case "threads" -> {
                ExecutorService pool = Executors.newFixedThreadPool(8);
                List<Future<Integer>> all = new ArrayList<>();
                for (int n = 0; n < 8; n++) {
                    int own = n;
                    all.add(pool.submit(() -> own));
                }
                int sum = 0;
                for (Future<Integer> one : all) sum += one.get();
                pool.shutdown();
                System.out.println(sum);
            }
            case "deep" -> System.out.println(deep(in.nextInt()));
            case "large" -> {
                big = new byte[300 << 20];
                for (int n = 0; n < big.length; n += 4096) big[n] = 7;
                System.out.println(big[4096] + big[5]);
            }
            case "loud" -> {
                System.err.write(new byte[] {(byte) 0xff, (byte) 0xfe});
                System.out.println(1);
            }
            case "crlf" -> {
                int a = in.nextInt();
                System.out.printf("%d\r\n%d\r\n", a + in.nextInt(), a);
            }
            default -> System.out.println(1);
        }
    }
}
"""
SOURCES = {
    "c": C,
    "cpp": CPP,
    "rust": RUST,
    "go": GO,
    "python": PYTHON,
    "javascript": JAVASCRIPT,
    "java": JAVA,
}
ROWS = [row for row in TOOLCHAINS if row.run]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}-{row.language}")
def test_a_right_program_passes(row: Toolchain, box: Sandbox) -> None:
    try:
        require(row)
    except ResourceError as error:
        pytest.skip(str(error))
    settings = SETTINGS.model_copy(update={"verifier": row.name})
    found = verdict(box, row.language, SOURCES[row.language], TESTS, settings)
    assert (found["outcome"], found["reward"]) == (Outcome.PASSED, 1.0), found
    assert found["toolchain"].startswith(row.name)
