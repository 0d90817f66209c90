// Package ttyd is the web terminal of a session: a page, and the WebSocket
// behind it, whose terminals live on when the WebSocket does not.
//
// # Wire protocol
//
// It is that of the program ttyd, so that its other clients work: WebSocket
// sub-protocol "tty" at /ws; the first message of a client is a JSON object
// {"AuthToken", "columns", "rows"}; every later message is a letter and its
// payload.
//
//	client  '0' input   '1' size as JSON   '2' pause   '3' resume
//	server  '0' output  '1' window title   '2' preferences as JSON
//
// GET /token gives {"token"}; a browser must bring it as AuthToken.
// /ws?session=NAME names the terminal to share; without a name it is a new one.
//
// A client that puts an object "resume" into its first message, be it empty,
// speaks our extension. It counts the bytes of output that it has, and says in
// "resume" of which terminal life ("instance") and how many ("offset"), so that
// a reconnect goes on exactly there. The same holds for what is typed: a page
// names itself ("client"), learns how many bytes of its input have come, and
// repeats the rest.
//
//	client  'A' the offset that it has processed, decimal: opens the window
//	        'N' a new shell, when the last one has ended
//	server  'S' state as JSON: terminal, instance, offset of the next output
//	            byte, live (what comes before it is replay and must not be
//	            answered), reset (forget the screen first), input (bytes of
//	            this client's input that have come)
//	        'M' output that restores modes and does not count
//	        'Z' {"columns", "rows"}: the size from this point of the output on
//	        'L' "1" or "0": whether this viewer answers the terminal's queries
//	        'X' {"code", "text"}: the shell ended
//	        'K' the bytes of this client's input that have come, decimal, now and then
//
// # Sizes
//
// A terminal has the size of the viewer that was active last: who typed,
// resized or arrived. The others show that size.
//
// # Memory and pace
//
// Output is kept in a ring of at most [ringLimit] bytes that grows on demand.
// The shell is read as fast as the fastest viewer takes it, never more than
// [paceLag] ahead, so that Ctrl+C answers at once under a flood; a viewer that
// falls behind the others is set forward. Nobody watching, nothing is delayed,
// but for [holdTime] after a viewer was cut, in which nothing that it has not
// seen is thrown away.
package ttyd
