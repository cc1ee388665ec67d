package webhook

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pillion-dev/pillion/profiles"
)

// begin sends the headers of a request, and as much of its body.
func begin(t *testing.T, f *fronted, length, body string) net.Conn {
	t.Helper()
	connection := f.dial(t)
	_, err := fmt.Fprintf(connection, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n\r\n%s",
		profiles.PathPods, length, body)
	if err != nil {
		t.Fatal(err)
	}
	return connection
}

// status reads an answer, which may come before the request is complete.
func status(t *testing.T, connection net.Conn) *http.Response {
	t.Helper()
	if err := connection.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response
}

func TestWhatIsMoreThanTheLimitsIsRefusedBeforeItIsRead(t *testing.T) {
	const length, chunked = "Content-Length: %d", "Transfer-Encoding: chunked"
	tests := map[string]struct {
		options   Options
		held      []string // the headers of requests of which the body does not come
		next      string
		wantLimit string // none: it is read
	}{
		"one request more": {
			options: Options{MaxRequestsInFlight: 2}, held: []string{fmt.Sprintf(length, 100), chunked}, next: fmt.Sprintf(length, 10),
			wantLimit: limitRequests,
		},
		"as many requests as there may be": {options: Options{MaxRequestsInFlight: 2}, held: []string{chunked}, next: fmt.Sprintf(length, 10)},
		"more bytes": {
			options: Options{MaxBytesInFlight: 1 << 20, MaxBodyBytes: 1 << 20},
			held:    []string{fmt.Sprintf(length, 900_000)}, next: fmt.Sprintf(length, 200_000),
			wantLimit: limitBytes,
		},
		"as many bytes as there may be": {
			options: Options{MaxBytesInFlight: 1 << 20, MaxBodyBytes: 1 << 20},
			held:    []string{fmt.Sprintf(length, 900_000)}, next: fmt.Sprintf(length, 100_000),
		},
		"more bytes, nobody knows how many": {
			options: Options{MaxBytesInFlight: 1 << 20, MaxBodyBytes: 1 << 20},
			held:    []string{fmt.Sprintf(length, 1<<20-chunk+1)}, next: chunked, wantLimit: limitBytes,
		},
		"more bytes than one may have": {
			options: Options{MaxBytesInFlight: 1 << 20, MaxBodyBytes: 1 << 20},
			held:    []string{fmt.Sprintf(length, 1_000_000)}, next: fmt.Sprintf(length, 2<<20), wantLimit: limitBytes,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := startFront(t, memory(t), func(f *fronted) { f.options.Handler = test.options })
			for _, headers := range test.held {
				begin(t, f, headers, "")
			}
			await(t, "they are not in flight", func() bool { return f.has(fmt.Sprintf("pillion_requests_in_flight %d", len(test.held))) })
			next := begin(t, f, test.next, "")
			if test.wantLimit == "" {
				await(t, "it is not in flight", func() bool { return f.has(fmt.Sprintf("pillion_requests_in_flight %d", len(test.held)+1)) })
				return
			}
			response := status(t, next)
			if response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") != "1" {
				t.Errorf("%s, Retry-After %q", response.Status, response.Header.Get("Retry-After"))
			}
			for _, metric := range []string{
				fmt.Sprintf("pillion_requests_rejected_total{limit=%q} 1", test.wantLimit),
				`pillion_admissions_total{reason="TooManyRequests",result="fault"} 1`,
			} {
				if !f.has(metric) {
					t.Errorf("the metrics lack %s", metric)
				}
			}
		})
	}
}

func TestABodyInChunksIsCountedAsItGrows(t *testing.T) {
	f := startFront(t, memory(t), func(f *fronted) { f.options.Handler = Options{MaxBytesInFlight: 100_000, MaxBodyBytes: 100_000} })
	connection := begin(t, f, "Transfer-Encoding: chunked", "")
	block := fmt.Sprintf("%x\r\n%s\r\n", 10_000, strings.Repeat(" ", 10_000))
	for range 5 {
		if _, err := io.WriteString(connection, block); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "50,000 bytes are not counted", func() bool { return f.has("pillion_request_bytes_in_flight 65536") })
	if _, err := io.WriteString(connection, block+block); err != nil {
		t.Fatal(err)
	}
	if response := status(t, connection); response.StatusCode != http.StatusTooManyRequests {
		t.Error(response.Status)
	}
	await(t, "it is not given back", func() bool {
		return f.has("pillion_request_bytes_in_flight 0") && f.has("pillion_requests_in_flight 0")
	})
}

func TestASlowBodyIsGivenBackAfterTheReadTimeout(t *testing.T) {
	f := startFront(t, memory(t), func(f *fronted) {
		f.options.ReadHeaderTimeout, f.options.ReadTimeout = 100*time.Millisecond, 300*time.Millisecond
		f.options.Handler = Options{MaxRequestsInFlight: 1, MaxBytesInFlight: 1 << 20, MaxBodyBytes: 1 << 20}
	})
	begin(t, f, fmt.Sprintf("Content-Length: %d", 1<<20), "{")
	await(t, "it is not in flight", func() bool { return f.has("pillion_requests_in_flight 1") })
	await(t, "it is not given back", func() bool {
		return f.has("pillion_request_bytes_in_flight 0") && f.has("pillion_requests_in_flight 0")
	})
	if response := answered(t, f.client(t, false), f.address, strings.NewReader(plainReview)); response.StatusCode != http.StatusOK {
		t.Error(response.Status)
	}
}

// TestClientsSeeThatThereIsNoRoom sends as Go's client does, as which the API server calls: it writes a body on while the answer
// comes, and must not take a connection that is closed then for a broken one.
func TestClientsSeeThatThereIsNoRoom(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 is %v", http2), func(t *testing.T) {
			f := startFront(t, memory(t), func(f *fronted) { f.options.Handler = Options{MaxBytesInFlight: 7 << 20} })
			begin(t, f, fmt.Sprintf("Content-Length: %d", 6<<20), "")
			await(t, "it is not in flight", func() bool { return f.has("pillion_requests_in_flight 1") })
			client := f.client(t, http2)
			for _, size := range []int{2 << 20, 7 << 20} {
				for range 10 {
					response := answered(t, client, f.address, strings.NewReader(plainReview+strings.Repeat(" ", size-len(plainReview))))
					if response.StatusCode != http.StatusTooManyRequests {
						t.Errorf("%d bytes: %s", size, response.Status)
					}
				}
			}
		})
	}
}

func TestWhatWouldGrowBeyondBoundsIsNotDecoded(t *testing.T) {
	review := func(object string) string {
		return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","namespace":"web",` +
			`"resource":{"version":"v1","resource":"pods"},"object":` + object + `}}`
	}
	list := func(n int) string { return strings.Repeat("{}, ", n-1) + "{}" }
	many := list(1_500_000)
	nulls := strings.Repeat("null,", 1_000_000) + "null"
	quantities := &strings.Builder{}
	for i := range mostValues {
		fmt.Fprintf(quantities, `"%x":1,`, i)
	}
	for name, test := range map[string]struct {
		path, object string
		want         int
		says         string
	}{
		"containers":               {object: `{"spec":{"containers":[` + many + `]}}`, want: http.StatusRequestEntityTooLarge, says: "20000 objects"},
		"volumes":                  {object: `{"spec":{"volumes":[` + many + `]}}`, want: http.StatusRequestEntityTooLarge, says: "20000 objects"},
		"variables":                {object: `{"spec":{"containers":[{"env":[` + many + `]}]}}`, want: http.StatusRequestEntityTooLarge, says: "20000 objects"},
		"containers that are null": {object: `{"spec":{"containers":[` + nulls + `]}}`, want: http.StatusRequestEntityTooLarge, says: "20000 objects"},
		"limits": {
			object: `{"spec":{"containers":[{"resources":{"limits":{` + quantities.String() + `"a":1}}}]}}`, want: http.StatusRequestEntityTooLarge,
			says: "400000 values",
		},
		"arguments": {
			object: `{"spec":{"containers":[{"args":[` + strings.Repeat(`"",`, mostValues) + `""]}]}}`, want: http.StatusRequestEntityTooLarge,
			says: "400000 values",
		},
		"containers of a profile": {
			path: profiles.PathProfiles, object: `{"spec":{"custom":{"template":{"containers":[` + many + `]}}}}`,
			want: http.StatusRequestEntityTooLarge, says: "20000 objects",
		},
		"containers where policy enforces": {
			path: profiles.PathEnforce + "0123abcd", object: `{"spec":{"containers":[` + many + `]}}`, want: http.StatusOK,
			says: "its admission review holds more than 20000 objects in lists; make the Pod's manifest smaller (PodTooLarge)",
		},
		"as many variables as there may be": {object: `{"spec":{"containers":[{"env":[` + list(mostElements-1) + `]}]}}`, want: http.StatusOK},
		"owners of many fields": {
			object: `{"metadata":{"managedFields":[{"fieldsV1":{"f:a":{` + strings.Repeat(`"f:a":{},`, 100_000) + `"f:b":{}}}}]}}`, want: http.StatusOK,
		},
		"braces in text": {
			object: `{"metadata":{"annotations":{"a":"` + strings.Repeat(`,{`, 500_000) + `","b":"` + strings.Repeat(`\"[{`, 50_000) + `"}}}`, want: http.StatusOK,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := counting(t)
			if test.path == "" {
				test.path = profiles.PathPods
			}
			before := allocated()
			recorder := c.post(t.Context(), test.path, review(test.object))
			if recorder.Code != test.want || !strings.Contains(recorder.Body.String(), test.says) {
				t.Errorf("HTTP %d, want %d: %.300s", recorder.Code, test.want, recorder.Body)
			}
			if took := allocated() - before; took > 100<<20 {
				t.Errorf("it took %d MiB", took>>20)
			}
			if !strings.Contains(c.scrape(), "pillion_request_bytes_in_flight 0\n") {
				t.Error("what it took is not given back")
			}
		})
	}
}

func allocated() uint64 {
	stats := runtime.MemStats{}
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

func TestObjectsInListsAreCounted(t *testing.T) {
	type counts struct{ elements, values int }
	for text, want := range map[string]counts{
		``:                                     {0, 0},
		`{}`:                                   {0, 0},
		`[]`:                                   {0, 0},
		`[{}]`:                                 {1, 1},
		"[ {} ,\n\t{\"a\":{}}\r\n, {} ]":       {3, 3},
		`{"a":[{"b":[{},{}]},{"c":{"d":{}}}]}`: {4, 4},
		`["[{,{", "\\", {}, "\"", {}]`:         {2, 4},
		`{"a":"[{","b":{},"c":{}}`:             {0, 2},
		`[1,{},null,{},true,{}]`:               {4, 5},
		"[null,\nnull , null]":                 {3, 3},
		`{"a":null,"b":null,"c":["null"]}`:     {0, 2},
		`["\\\"[{"`:                            {0, 0},
		`["`:                                   {0, 0},
		`["\`:                                  {0, 0},
		`[[{}],[{}]]`:                          {2, 3},
	} {
		if elements, values := valuesIn([]byte(text)); elements != want.elements || values != want.values {
			t.Errorf("%s: %d and %d, want %v", text, elements, values, want)
		}
	}
}

// TestAnHTTP2ConnectionIsGivenLittle sends the head of a frame of a megabyte, for which a server would make room at once.
func TestAnHTTP2ConnectionIsGivenLittle(t *testing.T) {
	f := startFront(t, memory(t), nil)
	config := f.tls()
	config.NextProtos = []string{"h2"}
	connection, err := tls.Dial("tcp", f.address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	if err := connection.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const settings, frame = "\x00\x00\x00\x04\x00\x00\x00\x00\x00", 1 << 20
	large := []byte{frame >> 16, frame >> 8 & 0xff, frame & 0xff, 0xee, 0, 0, 0, 0, 0} // of a type that nobody knows, and would ignore
	if _, err := io.WriteString(connection, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+settings+string(large)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(connection)
	if err != nil {
		t.Errorf("the connection is kept open for the rest of the frame: %v", err)
	}
	for what, setting := range map[string][]byte{
		"as many streams":         {0, 3, 0, 0, 0, maxStreams},
		"frames of 16 KiB":        {0, 5, 0, 0, frameBytes >> 8, 0},
		"headers of about 16 KiB": {0, 6, 0, 0, maxHeaderBytes>>8 + 1}, // and what headers weigh
	} {
		if !bytes.Contains(answer, setting) {
			t.Errorf("the server does not tell that it takes %s: %x", what, answer)
		}
	}
}

func TestStreamsThatPileUpAreReset(t *testing.T) {
	c := counting(t)
	entered, let := make(chan struct{}), make(chan struct{})
	handler := boundStreams(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-let
	}), c.metrics)
	serve := func(major int) (cause any) {
		defer func() { cause = recover() }()
		handler.ServeHTTP(httptest.NewRecorder(), &http.Request{ProtoMajor: major})
		return nil
	}
	var group sync.WaitGroup
	run := func(major int) {
		group.Go(func() {
			if cause := serve(major); cause != nil {
				t.Errorf("one of those that there may be is ended: %v", cause)
			}
		})
		<-entered
	}
	for range maxAllStreams {
		run(2)
	}
	if cause := serve(2); cause != http.ErrAbortHandler { //nolint:errorlint // net/http compares this panic value so
		t.Errorf("one more than there may be ended with %v", cause)
	}
	if !strings.Contains(c.scrape(), `pillion_requests_rejected_total{limit="streams"} 1`) {
		t.Error("it is not counted")
	}
	run(1) // their connections are bounded
	close(let)
	group.Wait()
	let = make(chan struct{})
	close(let)
	run(2)
	group.Wait()
}
