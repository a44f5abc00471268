// A client of paho.mqtt.golang that subscribes to nothing: with a default handler it prints "topic payload" for each
// message, without one it has no handler for any.  It ends upon SIGTERM.
//
//	client PORT CLIENT_ID [handler]
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	options := mqtt.NewClientOptions().AddBroker("tcp://127.0.0.1:" + os.Args[1]).SetClientID(os.Args[2])
	if len(os.Args) > 3 {
		options.SetDefaultPublishHandler(func(client mqtt.Client, message mqtt.Message) {
			fmt.Println(message.Topic(), string(message.Payload()))
		})
	}
	client := mqtt.NewClient(options)
	if token := client.Connect(); token.Wait() && token.Error() != nil {
		panic(token.Error())
	}
	fmt.Println("connected")
	<-ended
	client.Disconnect(100)
}
